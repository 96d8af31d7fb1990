"""Collects what each cell's finals say: scores on the test split, marks, parameter counts, how far the cell is.

The one place where test scores are taken out of the trials; it refuses every row that is not a final.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from statistics import fmean, stdev
from typing import Literal

import pandas as pd

from reports.store import Sweep
from reports.trials import PARAM, by_cell
from search_spaces import keys
from search_spaces.language import Cell
from search_spaces.records import END_STATES

Progress = Literal["complete", "finals running", "searching", "no winner", "not started"]


@dataclass(frozen=True, kw_only=True)
class Counts:
    """Trainable parameters of the cell's winner; the three ways of counting of `search_spaces.records.Counts`."""

    weights: int
    module: int
    trained: int


@dataclass(frozen=True, kw_only=True)
class CellResult:
    """One cell. `scores` holds the test score of each final that has one (percent points), in the order of seeds.

    `planned` finals were asked for, `running` have not ended, `failed` ended without a score. `collapsed` and
    `diverged` count finals whose scores are among `scores` all the same. `mixed`: they differ in configuration.
    """

    cell: Cell
    progress: Progress
    scores: tuple[float, ...]
    planned: int
    running: int
    failed: int
    collapsed: int
    diverged: int
    mixed: bool
    counts: Counts | None

    @property
    def mean(self) -> float | None:
        return fmean(self.scores) if self.scores else None

    @property
    def std(self) -> float | None:
        """Sample standard deviation (n - 1); None with fewer than two scores."""
        return stdev(self.scores) if len(self.scores) > 1 else None

    @property
    def ended(self) -> bool:
        return self.progress in ("complete", "no winner")


@lru_cache(maxsize=1)
def collect(sweep: Sweep) -> dict[Cell, CellResult]:
    """The result of every cell that the manifest promises, those without any run included."""
    return {cell: _result(sweep, cell, rows) for cell, rows in by_cell(sweep.manifest, sweep.trials).items()}


def test_scores(finals: pd.DataFrame, metric: str) -> pd.Series:
    """Test scores (percent points) of these trials, NaN where there is none.

    Raises ValueError unless every row is a final: numbers that took part in a selection are no results.
    """
    wrong = finals[finals["phase"] != "final"]
    if len(wrong):
        raise ValueError(
            f"{len(wrong)} of {len(finals)} rows are no finals (trial {wrong['trial'].iloc[0]}, phase "
            f"{wrong['phase'].iloc[0]!r}): a results table shows test scores of finals only"
        )
    name = keys.TEST + metric
    return finals[name] if name in finals else pd.Series(math.nan, index=finals.index)


test_scores.__test__ = False  # type: ignore[attr-defined]  # pytest: not a test


def final_values(finals: pd.DataFrame, metric: str) -> tuple[float, ...]:
    """The finals' values of one test metric in the order of their seeds; those without a value left out."""
    values = test_scores(finals, metric)[finals["state"] == "DONE"]
    seeds = (
        pd.to_numeric(finals.loc[values.index, PARAM + "seed"], errors="coerce") if PARAM + "seed" in finals else None
    )
    ordered = values if seeds is None else values.loc[seeds.sort_values(kind="stable").index]
    return tuple(float(value) for value in ordered if math.isfinite(value))


def winner_row(sweep: Sweep, cell: Cell) -> pd.Series | None:
    """The search trial that won the cell; None while there is no winner or its run is not in the store."""
    trials = sweep.trials
    rows = trials[(trials["cell"] == str(cell)) & (trials["trial"] == sweep.winners.get(str(cell), ""))]
    return None if rows.empty else rows.iloc[0]


def configuration(row: pd.Series) -> dict[str, str]:
    """Hyperparameters of a trial as MLflow keeps them, the seed left out."""
    names = [name for name in row.index if str(name).startswith(PARAM) and name != PARAM + "seed"]
    return {str(name).removeprefix(PARAM): str(row[name]) for name in names if not pd.isna(row[name])}


def _result(sweep: Sweep, cell: Cell, rows: pd.DataFrame) -> CellResult:
    finals = rows[rows["phase"] == "final"]
    scores = final_values(finals, sweep.manifest.tasks[cell.task].score)
    running = int((~finals["state"].isin(END_STATES)).sum())
    return CellResult(
        cell=cell,
        progress=_progress(sweep, cell, rows, finals),
        scores=scores,
        planned=sweep.manifest.budget.final_seeds,
        running=running,
        failed=len(finals) - running - len(scores),
        collapsed=int(finals["collapsed"].sum()),
        diverged=int(finals["diverged"].sum()),
        mixed=len({tuple(sorted(configuration(row).items())) for _, row in finals.iterrows()}) > 1,
        counts=_counts(finals, winner_row(sweep, cell)),
    )


def _progress(sweep: Sweep, cell: Cell, rows: pd.DataFrame, finals: pd.DataFrame) -> Progress:
    ended = rows["state"].isin(END_STATES)
    if ended[finals.index].sum() >= sweep.manifest.budget.final_seeds:
        return "complete"
    if str(cell) in sweep.winners or len(finals):
        return "finals running"
    if rows.empty:
        return "not started"
    searched = len(rows) >= sweep.manifest.planned_trials(cell.method) and ended.all()
    return "no winner" if searched and not (rows["state"] == "DONE").any() else "searching"


def _counts(finals: pd.DataFrame, winner: pd.Series | None) -> Counts | None:
    """Counts of the first final that has them, else the winner's."""
    known = finals.dropna(subset=["weights", "module", "trained"])
    row: Mapping[str, float] | pd.Series | None = known.iloc[0] if len(known) else winner
    if row is None or any(pd.isna(row[name]) for name in ("weights", "module", "trained")):
        return None
    return Counts(weights=int(row["weights"]), module=int(row["module"]), trained=int(row["trained"]))
