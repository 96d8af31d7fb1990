"""Where each method stands among those it is compared with: its interval, how far it is behind the best, whether that is real.

Joins the finals' scores and predictions of a sweep with the statistics of `reports/statistics/intervals.py`. A column is a model and a
task, or a model's average over tasks; only methods of one column are compared.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from statistics import fmean

import numpy as np

from reports.data.cells import collect
from reports.data.store import Predictions, StoredSweep
from reports.render.markdown import points
from reports.statistics.intervals import LEVEL, Estimate, TaskScores, averaged, holm
from reports.statistics.resampling import covariances, draws, resampled
from search_spaces.language import Cell

# A score that its own predictions do not give is not to be trusted: percent points, the rounding of what MLflow keeps.
ROUNDING = 0.01


@dataclass(frozen=True, kw_only=True)
class Standing:
    """One method in a column. `mean`: None with a single seed. `behind`: the best's mean minus this one, None for the best itself
    and where a side has a single seed; `p_value` is its, corrected for all `comparisons` of the column.

    `with_examples`: the intervals cover another choice of test examples too, not only other seeds.
    """

    value: float
    best: bool
    mean: Estimate | None
    behind: Estimate | None
    p_value: float | None
    comparisons: int
    with_examples: bool

    @property
    def tied(self) -> bool:
        """Not distinguishable from the best, though not the best."""
        return self.p_value is not None and self.p_value >= 1 - LEVEL

    @property
    def interval(self) -> tuple[float, float] | None:
        """95 % interval of the mean, cut to the range of scores."""
        if self.mean is None:
            return None
        return max(self.mean.value - self.mean.half, -100.0), min(self.mean.value + self.mean.half, 100.0)

    @property
    def behind_interval(self) -> tuple[float, float] | None:
        """95 % interval of the distance from the best, not corrected for the other comparisons."""
        if self.behind is None:
            return None
        return self.behind.value - self.behind.half, self.behind.value + self.behind.half

    @property
    def smallest(self) -> float | None:
        """The smallest difference to the best that would have counted as real, in percent points."""
        return None if self.behind is None else self.behind.threshold(self.comparisons)


@dataclass(frozen=True, kw_only=True)
class _Judged:
    """A column's estimates: per method its value and mean, per pair the first minus the second."""

    values: Mapping[str, float]
    means: Mapping[str, Estimate | None]
    pairs: Mapping[tuple[str, str], Estimate]
    with_examples: bool

    @cached_property
    def corrected(self) -> dict[tuple[str, str], float]:
        """p of every pair, corrected for all of them."""
        return dict(zip(self.pairs, holm([pair.p_value for pair in self.pairs.values()]), strict=True))


@lru_cache(maxsize=2)
def standings(sweep: StoredSweep) -> Mapping[Cell, Standing]:
    """Every cell that has a score, judged within its column."""
    found: dict[Cell, Standing] = {}
    for model in sweep.manifest.models:
        for task in sweep.manifest.tasks:
            judged = _column(sweep, model, task)
            found |= {Cell(model=model, task=task, method=name): s for name, s in _stand(judged).items()}
    return found


def better(sweep: StoredSweep, model: str, task: str) -> set[tuple[str, str]]:
    """Pairs of methods (the better one, the other) whose difference is real, corrected for all pairs of the column."""
    judged = _column(sweep, model, task)
    real = [pair for pair, p_value in judged.corrected.items() if p_value < 1 - LEVEL]
    return {(one, other) if judged.pairs[one, other].value > 0 else (other, one) for one, other in real}


def covered(sweep: StoredSweep) -> str:
    """What the intervals of this sweep's means cover, for captions."""
    known = {standing.with_examples for standing in standings(sweep).values() if standing.mean}
    examples = (
        " and test examples" if known == {True} else ", in some tasks over test examples too" if True in known else ""
    )
    return f"95 % interval over seeds{examples}"


def average_standings(sweep: StoredSweep, model: str) -> dict[str, Standing]:
    """The methods that have a score on every task, judged by their unweighted mean over tasks."""
    columns = [_column(sweep, model, task) for task in sweep.manifest.tasks]
    labels = [label for label in sweep.manifest.methods if all(label in column.values for column in columns)]
    means = {label: [column.means[label] for column in columns] for label in labels}
    pairs = {
        pair: [column.pairs[pair] for column in columns if pair in column.pairs]
        for pair in columns[0].pairs
        if set(pair) <= set(labels)
    }
    return _stand(
        _Judged(
            values={label: fmean(column.values[label] for column in columns) for label in labels},
            means={label: averaged([e for e in each if e]) if all(each) else None for label, each in means.items()},
            pairs={pair: averaged(each) for pair, each in pairs.items() if len(each) == len(columns)},
            with_examples=all(column.with_examples for column in columns),
        )
    )


@lru_cache(maxsize=256)
def _column(sweep: StoredSweep, model: str, task: str) -> _Judged:
    results = collect(sweep)
    cells = {label: results[Cell(model=model, task=task, method=label)] for label in sweep.manifest.methods}
    cells = {label: result for label, result in cells.items() if result.scores}
    labels = list(cells)
    scores = [score for result in cells.values() for score in result.scores]
    answers = [sweep.predictions.get(run) for result in cells.values() for run in result.runs]
    metric = sweep.manifest.tasks[task].score
    covariance = covariance_of(metric, scores, answers, generator_of(sweep, task)) if cells else None
    column = TaskScores([result.scores for result in cells.values()], covariance)
    return _Judged(
        values={label: fmean(result.scores) for label, result in cells.items()},
        means={label: column.mean(place) for place, label in enumerate(labels)},
        pairs={(labels[one], labels[other]): estimate for (one, other), estimate in column.differences().items()},
        with_examples=covariance is not None,
    )


def _stand(judged: _Judged) -> dict[str, Standing]:
    values = judged.values
    top = max((float(points(value)) for value in values.values()), default=0.0)
    best = [label for label, value in values.items() if float(points(value)) == top]

    def one(label: str) -> Standing:
        pair = next((p for p in ((best[0], label), (label, best[0])) if p in judged.pairs and label not in best), None)
        estimate = judged.pairs[pair] if pair else None
        return Standing(
            value=values[label],
            best=label in best,
            mean=judged.means[label],
            behind=-estimate if estimate and pair and pair[0] == label else estimate,
            p_value=judged.corrected[pair] if pair else None,
            comparisons=len(judged.pairs),
            with_examples=judged.with_examples,
        )

    return {label: one(label) for label in values}


def covariance_of(
    metric: str, scores: Sequence[float], answers: Sequence[Predictions | None], generator: np.random.Generator
) -> np.ndarray | None:
    """Covariance of these finals' scores over the choice of test examples, in squared percent points.

    None unless every one of them has predictions, for the same examples, that give its score: they are not to be trusted else.
    """
    known = [each for each in answers if each is not None]
    if len(known) < len(answers) or not _same_examples(known):
        return None
    labels, predicted = known[0].labels, np.stack([each.predicted for each in known])
    told = resampled(metric, predicted, labels, np.ones((1, len(labels))))[0]
    if not np.allclose(told, scores, rtol=0, atol=ROUNDING):
        return None
    return covariances(metric, predicted, labels, draws(len(labels), generator))


def generator_of(sweep: StoredSweep, task: str) -> np.random.Generator:
    """Of the sweep's seed and the task: a report built again draws the same, and every method of a task sees the same draws."""
    return np.random.default_rng([sweep.manifest.seed, zlib.crc32(task.encode())])


def _same_examples(answers: Sequence[Predictions]) -> bool:
    return len({(len(each.labels), each.labels.tobytes()) for each in answers}) == 1
