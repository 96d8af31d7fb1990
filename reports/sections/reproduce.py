"""Where every number comes from: the command, the store, and the runs behind each row."""

from __future__ import annotations

import shlex

import pandas as pd

from reports.cells import winner_row
from reports.markdown import MISSING, escape, fence, paragraphs, table
from reports.section import Section
from reports.store import Sweep
from reports.trials import PARAM
from search_spaces.language import Cell


def text(sweep: Sweep) -> str:
    rebuild = ["python", "-m", "reports", "--tracking-uri", sweep.tracking_uri, "--sweep", sweep.manifest.sweep]
    lines = [line for cell in sweep.manifest.cells for line in _lines(sweep, cell)]
    return paragraphs(
        "## How to reproduce",
        "The sweep (the same command continues it when it was interrupted):",
        fence(sweep.command or "unknown"),
        "This report, from the tracking store alone:",
        fence(shlex.join(rebuild)),
        f"The sweep's run in MLflow: {escape(sweep.run_id)}. A trial's id is the hash of all that decides its result. "
        "All trials, with their hyperparameters, stand in tables/trials.csv.",
        table(("Cell", "What", "Seed", "Trial", "MLflow run"), lines, "llrll") if lines else "No trial has run yet.",
    )


def _lines(sweep: Sweep, cell: Cell) -> list[tuple[object, ...]]:
    trials = sweep.trials
    winner = winner_row(sweep, cell)
    found = [] if winner is None else [_line(cell, "winner", winner)]
    finals = trials[(trials["cell"] == str(cell)) & (trials["phase"] == "final")]
    return found + [_line(cell, f"final, {str(row['state']).lower()}", row) for _, row in finals.iterrows()]


def _line(cell: Cell, what: str, row: pd.Series) -> tuple[object, ...]:
    seed = row.get(PARAM + "seed")
    return str(cell), what, MISSING if pd.isna(seed) else str(seed), row["trial"], row["run_id"]


SECTION = Section(text=text)
