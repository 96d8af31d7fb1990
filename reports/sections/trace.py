"""How to reproduce every number: commands, exact configurations, the tracking store, and the MLflow runs of each cell."""

from __future__ import annotations

import json
import shlex

import pandas as pd

from reports.data.cells import hyperparameters, winner_row
from reports.data.trial_table import PARAM
from reports.render.commands import cell_command, finals_command
from reports.render.markdown import MISSING, Markup, escape, fence, paragraphs
from reports.render.table import Table
from reports.sections.section import Section
from reports.sections.winners import named, searches
from reports.statistics.analysis import AnalyzedSweep
from search_spaces.language import Cell


def text(sweep: AnalyzedSweep) -> str:
    rebuild = ["python", "-m", "reports", "--tracking-uri", sweep.tracking_uri, "--sweep", sweep.manifest.sweep]
    shown = tables(sweep)
    cells, folder = sweep.manifest.cells, sweep.manifest.folder
    finals = [finals_command(sweep.command, folder, cell) for cell in cells]
    commands = [cell_command(sweep.command, cell) for cell in cells]
    return paragraphs(
        "## How to reproduce",
        "The sweep (the same command continues it when it was interrupted):",
        fence(sweep.command or "unknown"),
        "This report, from the tracking store alone:",
        fence(shlex.join(rebuild)),
        f"The sweep's run in MLflow: {escape(sweep.run_id)}. A trial's id is a hash of everything that its "
        "result depends on. tables/trials.csv lists all trials with their hyperparameters; tables/trace.csv has one "
        f"row per {'search' if sweep.manifest.budget.searches > 1 else 'cell'} with all of the following.",
        "Configuration of each cell's winner, and of its finals, beside the recipe that all share (see the top):",
        shown["configurations"].markdown() if shown["configurations"].rows else "No cell has a winner yet.",
        "The runs behind each cell:",
        shown["runs"].markdown() if shown["runs"].rows else "No trial has run yet.",
        "To repeat one cell's score: its finals are trained once more, alone, from the sweep's folder, and each score is "
        "printed beside the one on record:",
        fence("\n".join(command or "unknown" for command in finals)),
        "To repeat one cell's search, with the same code, data and encoder (with the same `--out`, its trials are found by their "
        "ids and not trained again; with a new folder they are trained):",
        fence("\n".join(command or "unknown" for command in commands)),
    )


def tables(sweep: AnalyzedSweep) -> dict[str, Table]:
    runs = [line for key in searches(sweep) for line in _runs(sweep, *key)]
    winners = [(key, winner_row(sweep, *key)) for key in searches(sweep)]
    known = [(named(sweep, *key), _configured(winner)) for key, winner in winners if winner is not None]
    return {
        "configurations": Table(
            header=("Cell", "Configuration"), rows=known, align="ll", caption=Markup("Configuration of each cell.")
        ),
        "runs": Table(
            header=("Cell", "What", "Seed", "Trial", "MLflow run"),
            rows=runs,
            align="llrll",
            caption=Markup("The runs behind each cell."),
        ),
    }


def rows(sweep: AnalyzedSweep) -> pd.DataFrame:
    """One row per search of a cell: its winner's configuration, the ids of trials and runs, the commands that repeat them."""
    return pd.DataFrame([_row(sweep, *key) for key in searches(sweep)])


def _row(sweep: AnalyzedSweep, cell: Cell, number: int) -> dict[str, object]:
    manifest = sweep.manifest
    winner, finals = winner_row(sweep, cell, number), _finals(sweep, cell, number)
    seeds = finals[PARAM + "seed"] if PARAM + "seed" in finals else pd.Series(dtype=str)
    return {
        "model": cell.model,
        "task": cell.task,
        "method": cell.method,
        "search": number,
        "kind": manifest.methods[cell.method].name,
        "configuration": "" if winner is None else json.dumps(hyperparameters(winner), sort_keys=True),
        "recipe": json.dumps(vars(manifest.recipe.of_task(cell.task)), sort_keys=True),
        "winner_trial": sweep.winners.get((str(cell), number), ""),
        "winner_run": "" if winner is None else winner["run_id"],
        "final_trials": " ".join(finals["trial"]),
        "final_runs": " ".join(finals["run_id"]),
        "final_seeds": " ".join(str(seed) for seed in seeds if not pd.isna(seed)),
        "encoder_fingerprint": manifest.models[cell.model].weights,
        "data_fingerprint": manifest.tasks[cell.task].split_of(number),
        "commit": manifest.commit,
        "dirty": manifest.dirty,
        "device": manifest.device,
        "command": cell_command(sweep.command, cell),
        "finals_command": finals_command(sweep.command, manifest.folder, cell),
    }


def _finals(sweep: AnalyzedSweep, cell: Cell, number: int) -> pd.DataFrame:
    trials = sweep.trials
    return trials[(trials["cell"] == str(cell)) & (trials["search"] == number) & (trials["phase"] == "final")]


def _configured(winner: pd.Series) -> str:
    return ", ".join(f"{name} = {value}" for name, value in sorted(hyperparameters(winner).items()))


def _runs(sweep: AnalyzedSweep, cell: Cell, number: int) -> list[tuple[object, ...]]:
    """Rows of the table "runs": the trials of the winner of this search of the cell, then its finals."""
    name, trials = named(sweep, cell, number), sweep.trials
    won = trials[
        trials["trial"].isin(sweep.winning_trials) & (trials["cell"] == str(cell)) & (trials["search"] == number)
    ]
    finals = _finals(sweep, cell, number)
    return [
        *(_run(name, "winner", row) for _, row in won.iterrows()),
        *(_run(name, f"final, {str(row['state']).lower()}", row) for _, row in finals.iterrows()),
    ]


def _run(name: str, what: str, row: pd.Series) -> tuple[object, ...]:
    """A row of the table "runs"; `name`: that of the cell, `what`: winner or final, `row`: its trial."""
    seed = row.get(PARAM + "seed")
    return name, what, MISSING if pd.isna(seed) else str(seed), row["trial"], row["run_id"]


SECTION = Section(text=text, rows=rows, tables=tables)
