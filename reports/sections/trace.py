"""How to reproduce every number: commands, exact configurations, the tracking store, and the MLflow runs of each cell."""

from __future__ import annotations

import json
import shlex

import pandas as pd

from reports.data.cells import hyperparameters, winner_row
from reports.data.trial_table import PARAM
from reports.render.commands import cell_command, export_command, finals_command
from reports.render.markdown import Markup, escape, fence, paragraphs
from reports.render.table import Table
from reports.sections.section import Section
from reports.sections.winners import named, searches
from reports.statistics.analysis import AnalyzedSweep
from search_spaces.language import Cell
from search_spaces.quantization import recipe_json


def text(sweep: AnalyzedSweep) -> str:
    rebuild = ["python", "-m", "reports", "--tracking-uri", sweep.tracking_uri, "--sweep", sweep.manifest.sweep]
    (example, _), folder = searches(sweep)[0], sweep.manifest.folder
    return paragraphs(
        "## How to reproduce",
        "The sweep (the same command continues it when it was interrupted):",
        fence(sweep.command or "unknown"),
        "This report, from the tracking store alone:",
        fence(shlex.join(rebuild)),
        "One cell: its finals are trained once more, each score beside the one on record; or its whole search with the same "
        "code, data and model (trials that are in the folder `--out` are found by their ids and not trained again); or its "
        "best final on the validation split is written as a model that other programs load:",
        fence(
            "\n".join(
                command or "unknown"
                for command in (
                    finals_command(sweep.command, folder, example),
                    cell_command(sweep.command, example),
                    export_command(sweep.command, folder, example),
                )
            )
        ),
        f"The sweep's run in MLflow: {escape(sweep.run_id)}. tables/trace.csv has one row per "
        f"{'search' if sweep.manifest.budget.searches > 1 else 'cell'} with the winner's whole configuration, the first "
        "two commands, seeds, MLflow runs and fingerprints; tables/trials.csv has every trial. A trial's id is a hash of "
        "everything that its result depends on.",
    )


def tables(sweep: AnalyzedSweep) -> dict[str, Table]:
    winners = [(key, winner_row(sweep, *key)) for key in searches(sweep)]
    known = [(named(sweep, *key), _configured(winner)) for key, winner in winners if winner is not None]
    return {
        "configurations": Table(
            header=("Cell", "Configuration"), rows=known, align="ll", caption=Markup("Configuration of each cell.")
        )
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
        "recipe": json.dumps(recipe_json(manifest.recipe.of_task(cell.task)), sort_keys=True),
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
    """Return the finals of a search by seed; the order in which they started depends on time."""
    trials = sweep.trials
    finals = trials[(trials["cell"] == str(cell)) & (trials["search"] == number) & (trials["phase"] == "final")]
    seed = PARAM + "seed"
    return finals.sort_values(seed, key=pd.to_numeric, kind="stable") if seed in finals else finals


def _configured(winner: pd.Series) -> str:
    return ", ".join(f"{name} = {value}" for name, value in sorted(hyperparameters(winner).items()))


SECTION = Section(text=text, rows=rows, tables=tables)
