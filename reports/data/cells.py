"""Collects the results of each cell from its finals: test scores, parameter counts, failures and progress.

No other module reads test scores from the table of trials. `test_scores` raises ValueError for rows that are not finals.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Literal

import pandas as pd

from reports.data.store import StoredSweep
from reports.data.trial_table import PARAM, TEST, by_cell
from search_spaces.language import Cell
from search_spaces.records import END_STATES

Progress = Literal["complete", "finals unfinished", "search unfinished", "no winner", "not started"]


@dataclass(frozen=True, kw_only=True)
class CellCounts:
    """Parameters of the cell's winner, counted in the ways of `search_spaces.records.Counts`.

    weights: the method's matrices without pruned entries. module: the same with biases. trained: all that the optimizer updates,
    head and LayerNorms included. active: values of the finished model that are not the pretrained ones. stored_bytes: bytes that
    have to be kept to use it again. The last two are None in sweeps from before they were recorded.
    """

    weights: int
    module: int
    trained: int
    active: int | None = None
    stored_bytes: int | None = None

    @property
    def stored(self) -> float | None:
        """`stored_bytes` as a number of 32-bit numbers."""
        return None if self.stored_bytes is None else self.stored_bytes / 4


@dataclass(frozen=True, kw_only=True)
class CellResult:
    """The results of one cell.

    progress: "complete" if all finals ended, "no winner" if the search ended without one; else how far the cell is. A store does
        not tell whether a trial without an end still runs, so none is called running.
    scores: test scores of the finals that have one, in percent points, ordered by search and seed.
    scores_without_collapse: the same without those of collapsed finals.
    runs, trials, searches: MLflow run ids, trial ids and numbers of the searches of the same finals, in the same order.
    planned, unfinished, failed: numbers of finals; unfinished ones began and have not ended, failed ones ended without a score.
    collapsed: number of finals whose test predictions are all equal. diverged: number of finals whose loss was not finite.
        Both are in `scores` as well if they have a score.
    mixed: whether the finals of one search differ in their hyperparameters, because its winner changed during the sweep.
    counts: None while neither a final nor the winner of the first search has parameter counts.
    more_counts: those of the winners of the other searches, where known.
    by_search: whether the cell was to be searched several times.
    """

    cell: Cell
    progress: Progress
    scores: tuple[float, ...]
    scores_without_collapse: tuple[float, ...]
    runs: tuple[str, ...]
    trials: tuple[str, ...]
    planned: int
    unfinished: int
    failed: int
    collapsed: int
    diverged: int
    mixed: bool
    counts: CellCounts | None
    searches: tuple[int, ...] = ()
    more_counts: tuple[CellCounts, ...] = ()
    by_search: bool = False

    @property
    def repeats(self) -> tuple[float, ...]:
        """The values over which the cell was repeated, percent points: its finals' scores, or if it was searched several times
        the mean score of each search's finals.
        """
        if not self.by_search:
            return self.scores
        numbers = dict.fromkeys(self.searches)
        pairs = list(zip(self.searches, self.scores, strict=True))
        return tuple(fmean(score for of, score in pairs if of == number) for number in numbers)

    @property
    def mean(self) -> float | None:
        """Mean of `repeats`, percent points; None without a score."""
        return fmean(self.repeats) if self.scores else None

    @property
    def std(self) -> float | None:
        """Sample standard deviation of `repeats` (divisor n - 1), percent points; None with fewer than two."""
        return stdev(self.repeats) if len(self.repeats) > 1 else None

    @property
    def all_converged(self) -> bool:
        """Whether no final collapsed or diverged."""
        return self.collapsed == 0 and self.diverged == 0

    @property
    def ended(self) -> bool:
        """Whether no trial of the cell is missing: all finals ended, or the search ended without a winner."""
        return self.progress in ("complete", "no winner")


def collect_results(sweep: StoredSweep) -> Mapping[Cell, CellResult]:
    """Return the result of every cell of the manifest, including cells without any run.

    Raises ValueError if a search trial has a score on the test split, because winners may then have been selected by it.
    """
    check_selection(sweep.trials)
    return {cell: _result(sweep, cell, rows) for cell, rows in by_cell(sweep.manifest, sweep.trials).items()}


def winner_counts(results: Mapping[Cell, CellResult], model: str, label: str) -> list[CellCounts]:
    """Return the parameter counts of a method row's winners on one model, one entry per task and search for
    which they are known."""
    cells = [results[cell] for cell in results if (cell.model, cell.method) == (model, label)]
    return [counts for cell in cells for counts in (cell.counts, *cell.more_counts) if counts is not None]


def check_selection(trials: pd.DataFrame) -> None:
    """Raise ValueError if any search trial has a score on the test split, which only finals may have."""
    scored = [name for name in trials.columns if str(name).startswith(TEST)]
    seen = trials[~trials["phase"].isin(("final", "replaced")) & trials[scored].notna().any(axis=1)]
    if len(seen):
        raise ValueError(
            f"trial {seen['trial'].iloc[0]} of {seen['cell'].iloc[0]} belongs to the search and has a score on the test split "
            f"({len(seen)} such trials): results selected on the split that they report are refused"
        )


def test_scores(finals: pd.DataFrame, metric: str) -> pd.Series:
    """Return the test scores (percent points) of these rows of the table of trials, NaN where there is none.

    Raises ValueError unless every row is a final: scores by which a configuration was selected are biased upwards.
    """
    wrong = finals[finals["phase"] != "final"]
    if len(wrong):
        raise ValueError(
            f"{len(wrong)} of {len(finals)} rows are not finals (trial {wrong['trial'].iloc[0]}, phase "
            f"{wrong['phase'].iloc[0]!r}): a results table shows test scores of finals only"
        )
    name = TEST + metric
    return finals[name] if name in finals else pd.Series(math.nan, index=finals.index)


test_scores.__test__ = False  # type: ignore[attr-defined]  # pytest: not a test


def final_values(finals: pd.DataFrame, metric: str) -> tuple[float, ...]:
    """Return the finals' values of one test metric (percent points), ordered by seed, without finals that have none."""
    return tuple(float(value) for value in _by_seed(finals, metric))


def _by_seed(finals: pd.DataFrame, metric: str) -> pd.Series:
    """Return the finite test scores of finals in the state DONE, by search and seed; the index is that of the rows."""
    values = test_scores(finals, metric)[finals["state"] == "DONE"]
    values = values[values.map(math.isfinite)]
    if PARAM + "seed" not in finals:
        return values
    seeds = pd.to_numeric(finals.loc[values.index, PARAM + "seed"], errors="coerce")
    order = pd.DataFrame({"search": finals.loc[values.index, "search"], "seed": seeds})
    return values.loc[order.sort_values(["search", "seed"], kind="stable").index]


def winner_row(sweep: StoredSweep, cell: Cell, search: int = 0) -> pd.Series | None:
    """Return the row of the winner of a search of the cell (numbered from 0) in the table of trials.

    None if there is no winner or its run is not stored.
    """
    trials = sweep.trials
    rows = trials[(trials["cell"] == str(cell)) & (trials["trial"] == sweep.winners.get((str(cell), search), ""))]
    return None if rows.empty else rows.iloc[0]


def hyperparameters(row: pd.Series) -> dict[str, str]:
    """Return the hyperparameters of a row of the table of trials by name, without the seed; MLflow stores the values as text."""
    names = [name for name in row.index if str(name).startswith(PARAM) and name != PARAM + "seed"]
    return {str(name).removeprefix(PARAM): str(row[name]) for name in names if not pd.isna(row[name])}


def _result(sweep: StoredSweep, cell: Cell, rows: pd.DataFrame) -> CellResult:
    finals = rows[rows["phase"] == "final"]
    found = _by_seed(finals, sweep.manifest.tasks[cell.task].score)
    scores = tuple(float(value) for value in found)
    unfinished = int((~finals["state"].isin(END_STATES)).sum())
    numbers = range(sweep.manifest.budget.searches)
    by_search = [finals[finals["search"] == number] for number in numbers]
    counts = [_counts(by_search[number], winner_row(sweep, cell, number)) for number in numbers]
    return CellResult(
        cell=cell,
        progress=_progress(sweep, cell, rows),
        scores=scores,
        scores_without_collapse=tuple(
            float(value) for value in found[~finals.loc[found.index, "collapsed"].astype(bool)]
        ),
        runs=tuple(finals.loc[found.index, "run_id"]),
        trials=tuple(finals.loc[found.index, "trial"]),
        planned=len(numbers) * sweep.manifest.budget.final_seeds,
        unfinished=unfinished,
        failed=len(finals) - unfinished - len(scores),
        collapsed=int(finals["collapsed"].sum()),
        diverged=int(finals["diverged"].sum()),
        mixed=any(_mixed(each) for each in by_search),
        counts=counts[0],
        searches=tuple(int(number) for number in finals.loc[found.index, "search"]),
        more_counts=tuple(each for each in counts[1:] if each),
        by_search=len(numbers) > 1,
    )


def _mixed(finals: pd.DataFrame) -> bool:
    return len({tuple(sorted(hyperparameters(row).items())) for _, row in finals.iterrows()}) > 1


def _progress(sweep: StoredSweep, cell: Cell, rows: pd.DataFrame) -> Progress:
    """Return how far the cell is: as far as the search that is least far, but "complete" beside a search without a winner."""
    numbers = range(sweep.manifest.budget.searches)
    found = {_search_progress(sweep, cell, rows[rows["search"] == number], number) for number in numbers}
    if len(found) > 1 and "not started" in found:
        return "search unfinished"
    order: tuple[Progress, ...] = ("not started", "search unfinished", "finals unfinished", "complete", "no winner")
    return next(progress for progress in order if progress in found)


def _search_progress(sweep: StoredSweep, cell: Cell, rows: pd.DataFrame, search: int) -> Progress:
    """Return how far a search is. "no winner": it ended, or was ended by a time budget, and no trial is DONE."""
    finals = rows[rows["phase"] == "final"]
    ended = rows["state"].isin(END_STATES)
    if ended[finals.index].sum() >= sweep.manifest.budget.final_seeds:
        return "complete"
    if (str(cell), search) in sweep.winners or len(finals):
        return "finals unfinished"
    if rows.empty:
        return "not started"
    asked = bool(sweep.curtailed) or len(rows) >= sweep.manifest.planned_trials(cell.method)
    return "no winner" if asked and ended.all() and not (rows["state"] == "DONE").any() else "search unfinished"


def _counts(finals: pd.DataFrame, winner: pd.Series | None) -> CellCounts | None:
    """Return the parameter counts of the first final that has them, else those of the winner; None if both lack them."""
    known = finals.dropna(subset=["weights", "module", "trained"])
    row: Mapping[str, float] | pd.Series | None = known.iloc[0] if len(known) else winner
    if row is None or any(pd.isna(row[name]) for name in ("weights", "module", "trained")):
        return None
    names = ("weights", "module", "trained", "active", "stored_bytes")
    return CellCounts(**{name: int(row[name]) for name in names if not pd.isna(row[name])})
