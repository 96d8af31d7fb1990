"""Makes the table of trials of a sweep, one row per trial, from MLflow's run objects (this module does not import mlflow).

Columns (missing numbers are NaN):
run_id: id of the MLflow run. trial: trial id. cell: "model/task/label". model, task, method: its parts; method is the label.
search: number of the cell's search that the trial belongs to, from 0.
phase: "search", "final", or "replaced" for a final of a former winner. state, reason: how the trial ended, and why.
cached: the result was taken from another sweep. collapsed, diverged (the loss was not finite): True or False.
best_score: best validation score over epochs, percent points. best_epoch: its epoch. epochs: number of epochs trained.
seconds: training time, summed over epochs. memory_mib: peak memory, MiB.
saved_bytes: size of the checkpoint with the parameters of the best epoch, in bytes.
weights, module, trained, total, active, stored_bytes: parameter counts (`search_spaces.records.Counts`).
param.*: hyperparameters, as the texts that MLflow stores. test.*: scores on the test split, percent points, finals only.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import pandas as pd

from reports.data.manifest import Manifest
from search_spaces import keys
from search_spaces.language import Cell
from search_spaces.records import END_STATES
from search_spaces.redaction import clean_line

PARAM, TEST = "param.", "test."  # prefixes of the columns with hyperparameters and with test scores
COUNTS = ("weights", "module", "trained", "total", "active", "stored_bytes")
_BASE = (
    *("run_id", "started", "cell", "model", "task", "method", "trial", "search", "phase", "state", "reason"),
    *(
        "cached",
        "collapsed",
        "diverged",
        "best_score",
        "best_epoch",
        "epochs",
        "seconds",
        "memory_mib",
        "saved_bytes",
        *COUNTS,
    ),
)


def trial_table(manifest: Manifest, runs: list[Any], seconds: Mapping[str, tuple[float, int]]) -> pd.DataFrame:
    """Return the table of the trials that have these runs, ordered by cell as in the manifest, search before finals.

    `seconds` maps a run id to (training time in seconds, number of epochs). Runs of cells that the manifest does not have are
    left out with a warning.
    """
    order = {str(cell): position for position, cell in enumerate(manifest.cells)}
    rows = [_row(manifest, run, *seconds[run.info.run_id]) for run in runs]
    table = pd.DataFrame(rows, columns=_columns(manifest, rows))
    unknown = ~table["cell"].isin(order)
    if unknown.any():
        logging.getLogger(__name__).warning("%d trials of cells outside the manifest are left out", unknown.sum())
    table = table[~unknown]
    # A trial has two runs after a retried request or a crash: the one that ended is kept, else the newest.
    table = table.assign(ended=table["state"].isin(END_STATES), order=table["cell"].map(order))
    table = table.sort_values(["ended", "started"], kind="stable").drop_duplicates(["cell", "trial"], keep="last")
    table = table.sort_values(
        ["order", "phase", "search", "started", "trial"], ascending=[True, False, True, True, True]
    )
    return table.drop(columns=["ended", "order", "started"]).reset_index(drop=True)


def by_cell(manifest: Manifest, trials: pd.DataFrame) -> dict[Cell, pd.DataFrame]:
    """Split the table of trials by cell, in the order of the manifest; a cell without trials gets an empty table."""
    groups = {str(cell): rows for cell, rows in trials.groupby("cell", sort=False)}
    return {cell: groups.get(str(cell), trials.iloc[:0]) for cell in manifest.cells}


def _columns(manifest: Manifest, rows: list[dict[str, Any]]) -> list[str]:
    """Return the column names in a fixed order; an empty table has the same ones, apart from hyperparameters."""
    metrics = {TEST + metric for task in manifest.tasks.values() for metric in (task.score, *task.metrics)}
    found = {name for row in rows for name in row}
    params = sorted(name for name in found if name.startswith(PARAM))
    tests = sorted(metrics | {name for name in found if name.startswith(TEST)})
    return [*_BASE, *params, *tests]


def score_of(manifest: Manifest, run: Any) -> str:
    """Return the name of the score of the task that a trial's MLflow run is about; "" for a task outside the manifest."""
    task = manifest.tasks.get(["", "", *run.data.tags.get(keys.CELL, "").rsplit("/", 2)][-2])
    return task.score if task else ""


def _row(manifest: Manifest, run: Any, seconds: float, epochs: int) -> dict[str, Any]:
    """Return the row of one trial from its MLflow run; missing numbers are NaN."""
    tags, score = run.data.tags, score_of(manifest, run)
    metrics = keys.current_metrics(run.data.metrics, score)
    # Split from the end, because a model may be a path that contains slashes.
    model, task, method = ["", "", *tags.get(keys.CELL, "").rsplit("/", 2)][-3:]
    row = {
        "run_id": run.info.run_id,
        "started": run.info.start_time,
        "cell": tags.get(keys.CELL, ""),
        "model": model,
        "task": task,
        "method": method,
        "trial": tags.get(keys.TRIAL, run.info.run_id),
        "search": int(tags.get(keys.SEARCH, "0")),
        "phase": tags.get(keys.PHASE, ""),
        "state": tags.get(keys.STATE, ""),
        "reason": clean_line(tags.get(keys.REASON, "")),
        "cached": tags.get(keys.CACHED) == "true",
        "collapsed": tags.get(keys.COLLAPSED) == "true",
        "diverged": tags.get(keys.DIVERGED) == "true",
        "seconds": seconds,
        "epochs": metrics.get(keys.EPOCHS, epochs),
    }
    columns = {"best_score": keys.best(score), "best_epoch": keys.BEST_EPOCH, "memory_mib": keys.MEMORY}
    columns |= {"saved_bytes": keys.SAVED_BYTES, **{name: keys.COUNTS + name for name in COUNTS}}
    row |= {column: metrics.get(name, float("nan")) for column, name in columns.items()}
    row |= {PARAM + name: value for name, value in run.data.params.items() if name not in keys.PLACE}
    tests = {name.removeprefix(keys.TEST): value for name, value in metrics.items() if name.startswith(keys.TEST)}
    return row | {TEST + name: value for name, value in tests.items()}
