"""Collects the points of the parameter-efficiency figure: what each trial and each cell scored, and what it trained.

Numbers only; `reports/figures.py` draws them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

from reports.cells import CellResult
from reports.store import Sweep
from search_spaces.language import Cell


@dataclass(frozen=True, kw_only=True)
class SearchPoint:
    """A search trial: parameters it trained, best validation score (percent points), whether ASHA stopped it."""

    trained: int
    score: float
    stopped: bool


@dataclass(frozen=True, kw_only=True)
class FinalPoint:
    """A cell's finals: parameters trained, mean and sample std of the test score (points; None for one), their number."""

    trained: int
    mean: float
    std: float | None
    n: int


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One model and task; both maps go from a method's label to its points, methods without any left out."""

    title: str
    search: Mapping[str, list[SearchPoint]]
    finals: Mapping[str, FinalPoint]


def panels(sweep: Sweep, model: str, results: Mapping[Cell, CellResult]) -> list[Panel]:
    """The panels of one model's figure, one per task."""
    trials = sweep.trials
    usable = trials[
        (trials["phase"] == "search")
        & trials["state"].isin(("DONE", "STOPPED"))
        & (trials["model"] == model)
        & trials["trained"].gt(0)
        & trials["best_score"].notna()
    ]
    return [_panel(sweep, model, task, usable, results) for task in sweep.manifest.tasks]


def _panel(sweep: Sweep, model: str, task: str, usable: pd.DataFrame, results: Mapping[Cell, CellResult]) -> Panel:
    search: dict[str, list[SearchPoint]] = {}
    finals: dict[str, FinalPoint] = {}
    for label in sweep.manifest.methods:
        rows = usable[(usable["task"] == task) & (usable["method"] == label)]
        found = [_search_point(row) for _, row in rows.iterrows()]
        if found:
            search[label] = found
        result = results[Cell(model=model, task=task, method=label)]
        if result.mean is not None and result.counts is not None and result.counts.trained > 0:
            finals[label] = FinalPoint(
                trained=result.counts.trained, mean=result.mean, std=result.std, n=len(result.scores)
            )
    facts = sweep.manifest.tasks[task]
    return Panel(title=f"{facts.title} ({facts.score})", search=search, finals=finals)


def _search_point(row: pd.Series) -> SearchPoint:
    assert math.isfinite(row["best_score"])
    return SearchPoint(
        trained=int(row["trained"]), score=float(row["best_score"]), stopped=bool(row["state"] == "STOPPED")
    )
