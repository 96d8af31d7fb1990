"""Compares the methods of a column: each method's interval, its difference from the best one, and whether that is significant.

A column (of the table of results) is one model and task, or one model with the mean over tasks; methods are compared within a
column only. The statistics, which use the finals' scores and predictions, are described in `reports/statistics/intervals.py`.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from statistics import fmean

import numpy as np

from reports.data.cells import CellResult
from reports.data.manifest import Manifest
from reports.data.store import Predictions, StoredSweep
from reports.statistics.intervals import LEVEL, Estimate, TaskScores, averaged
from reports.statistics.multiple_comparisons import all_pairs
from reports.statistics.resampling import covariances, draw_resamples, resampled_scores, score_limits
from reports.statistics.rounding import round_as_printed
from reports.statistics.searches import repetitions
from reports.statistics.seed_variance import SampleVariance, SeedVariancePrior, estimate_priors
from search_spaces.language import Cell

# If predictions give a score that differs from the logged one by more percent points than this, they are not used. The two may
# differ a little, because logged scores are rounded.
SCORE_TOLERANCE = 0.01
Columns = Mapping[tuple[str, str], "ColumnEstimates"]  # by model and task


@dataclass(frozen=True, kw_only=True)
class Standing:
    """One method compared with the best one of its column; scores and differences are in percent points.

    value: mean score over the finals.
    best: whether the value, rounded as printed, is the highest of the column.
    mean: the value with its variance; None with a single seed.
    gap: the best method's mean minus this one; None for the best methods and if this or the best method has a single seed.
    p_value: p-value of the hypothesis that the true gap is 0, corrected for all comparisons of the column; None without a gap.
    comparisons: number of pairs of methods in the column that can be compared.
    with_examples: whether the intervals cover the choice of test examples, too, and not only that of seeds.
    """

    value: float
    best: bool
    mean: Estimate | None
    gap: Estimate | None
    p_value: float | None
    comparisons: int
    with_examples: bool

    @property
    def tied(self) -> bool:
        """Whether the method is not the best, but not significantly different from the best either."""
        return self.p_value is not None and self.p_value >= 1 - LEVEL

    @property
    def verdict(self) -> str:
        """The comparison with the column's best method in words; it cannot be judged with a single seed."""
        if self.best:
            return "best"
        return "cannot be judged" if self.p_value is None else "tied" if self.tied else "worse"

    @property
    def interval(self) -> tuple[float, float] | None:
        """95 % interval of the mean, cut to the possible range of the metric; None with a single seed."""
        return None if self.mean is None else self.mean.interval

    @property
    def gap_interval(self) -> tuple[float, float] | None:
        """95 % interval of the gap, not corrected for multiple comparisons; None without a gap."""
        return None if self.gap is None else self.gap.interval

    @property
    def smallest_significant_gap(self) -> float | None:
        """The smallest gap that would be significant at the gap's standard error; None without a gap."""
        return None if self.gap is None else self.gap.significance_threshold(self.comparisons)


@dataclass(frozen=True, kw_only=True)
class ColumnEstimates:
    """Estimates for the methods of one column, by label; scores are in percent points.

    values: mean score of each method that has a score.
    means: the same means with their variances; None for a method with a single seed.
    differences: by pair of labels, the mean of the first method minus that of the second.
    with_examples: whether the estimates include the variance over the choice of test examples.
    priors: for each method the prior that moderated its variance over seeds; None if it has none. Empty for a mean over tasks.
    """

    values: Mapping[str, float]
    means: Mapping[str, Estimate | None]
    differences: Mapping[tuple[str, str], Estimate]
    with_examples: bool
    priors: Mapping[str, SeedVariancePrior | None] = field(default_factory=dict)

    @cached_property
    def corrected(self) -> dict[tuple[str, str], float]:
        """p-value of the difference of each pair, corrected for the number of pairs."""
        methods = {label for pair in self.differences for label in pair}
        p_values = all_pairs([difference.p_value for difference in self.differences.values()], len(methods))
        return dict(zip(self.differences, p_values, strict=True))

    @property
    def significant_pairs(self) -> set[tuple[str, str]]:
        """Pairs of labels, that of the better method first, whose difference is significant at 5 % after correction."""
        significant = [pair for pair, p_value in self.corrected.items() if p_value < 1 - LEVEL]
        return {(a, b) if self.differences[a, b].value > 0 else (b, a) for a, b in significant}


def estimate_columns(sweep: StoredSweep, results: Mapping[Cell, CellResult]) -> Columns:
    """Return the estimates of all models and tasks of the sweep from the results of its cells.

    The cells of a model moderate each other's variances over seeds, except those with a collapsed or diverged final.
    """
    columns: dict[tuple[str, str], ColumnEstimates] = {}
    for model in sweep.manifest.models:
        found = [_TaskColumn(sweep, results, model, task) for task in sweep.manifest.tasks]
        priors = estimate_priors([column.regular_variances for column in found])
        columns |= {(model, column.task): column.estimates(prior) for column, prior in zip(found, priors, strict=True)}
    return columns


def task_standings(columns: Columns) -> dict[Cell, Standing]:
    """Compare every cell that has a score with the best one of its model and task."""
    return {
        Cell(model=model, task=task, method=method): standing
        for (model, task), column in columns.items()
        for method, standing in _compare(column).items()
    }


def average_standings(manifest: Manifest, columns: Columns, model: str) -> dict[str, Standing]:
    """Compare the methods that have a score on every task by their unweighted mean over tasks, for one model; by label."""
    tasks = [columns[model, task] for task in manifest.tasks]
    labels = [label for label in manifest.methods if all(label in task.values for task in tasks)]
    means = {label: [task.means[label] for task in tasks] for label in labels}
    differences = {
        pair: [task.differences[pair] for task in tasks if pair in task.differences]
        for pair in tasks[0].differences
        if set(pair) <= set(labels)
    }
    return _compare(
        ColumnEstimates(
            values={label: fmean(task.values[label] for task in tasks) for label in labels},
            means={label: averaged([e for e in each if e]) if all(each) else None for label, each in means.items()},
            differences={pair: averaged(each) for pair, each in differences.items() if len(each) == len(tasks)},
            with_examples=all(task.with_examples for task in tasks),
        )
    )


def interval_coverage(standings: Iterable[Standing], searches: int = 1) -> str:
    """Return for captions whether the intervals of these means cover seeds (or several searches) only, or test
    examples, too."""
    known = {standing.with_examples for standing in standings if standing.mean}
    examples = (
        " and test examples" if known == {True} else ", in some tasks over test examples too" if True in known else ""
    )
    return f"95 % interval over {'searches' if searches > 1 else 'seeds'}{examples}"


class _TaskColumn:
    """The scores of one model and task, for the method rows that have a score."""

    def __init__(self, sweep: StoredSweep, results: Mapping[Cell, CellResult], model: str, task: str):
        self.task = task
        cells = {label: results[Cell(model=model, task=task, method=label)] for label in sweep.manifest.methods}
        self._cells = {label: result for label, result in cells.items() if result.scores}
        scores = [score for result in self._cells.values() for score in result.scores]
        predictions = [sweep.predictions.get(run) for result in self._cells.values() for run in result.runs]
        metric = sweep.manifest.tasks[task].score
        covariance = covariance_of(metric, scores, predictions, generator_of(sweep, task)) if scores else None
        self._with_examples = covariance is not None
        self._scores = TaskScores(*repetitions(list(self._cells.values()), covariance), limits=score_limits(metric))

    @property
    def regular_variances(self) -> list[SampleVariance]:
        """The variances between the seeds (or searches) of the cells without a collapsed or diverged final."""
        found = zip(self._cells.values(), self._scores.sample_variances, strict=True)
        return [sample for result, sample in found if sample is not None and result.all_converged]

    def estimates(self, prior: SeedVariancePrior | None) -> ColumnEstimates:
        """Return the estimates, with the variances of cells without a collapsed or diverged final moderated by the prior."""
        labels = list(self._cells)
        priors = {label: prior if result.all_converged else None for label, result in self._cells.items()}
        column = self._scores.moderated(list(priors.values()))
        return ColumnEstimates(
            values={label: fmean(result.repeats) for label, result in self._cells.items()},
            means={label: column.mean(index) for index, label in enumerate(labels)},
            differences={(labels[a], labels[b]): estimate for (a, b), estimate in column.differences().items()},
            with_examples=self._with_examples,
            priors=priors,
        )


def _compare(column: ColumnEstimates) -> dict[str, Standing]:
    """Compare every method of the column with the best one; of several best, with the first."""
    values = column.values
    top = max(map(round_as_printed, values.values()), default=0.0)
    best = [label for label, value in values.items() if round_as_printed(value) == top]

    def standing(label: str) -> Standing:
        pairs = [] if label in best else [(best[0], label), (label, best[0])]
        pair = next((pair for pair in pairs if pair in column.differences), None)
        difference = column.differences[pair] if pair else None
        return Standing(
            value=values[label],
            best=label in best,
            mean=column.means[label],
            gap=-difference if difference and pair and pair[0] == label else difference,
            p_value=column.corrected[pair] if pair else None,
            comparisons=len(column.differences),
            with_examples=column.with_examples,
        )

    return {label: standing(label) for label in values}


def covariance_of(
    metric: str, scores: Sequence[float], predictions: Sequence[Predictions | None], generator: np.random.Generator
) -> np.ndarray | None:
    """Return the covariance [K, K] of the scores of K finals over the choice of test examples, in squared percent points.

    None if a final has no predictions, if finals have different labels, or if a logged score (one of `scores`) cannot be
    reproduced from the predictions.
    """
    known = [each for each in predictions if each is not None]
    if len(known) < len(predictions) or not _same_examples(known):
        return None
    labels, predicted = known[0].labels, np.stack([each.predicted for each in known])
    recomputed = resampled_scores(metric, predicted, labels, np.ones((1, len(labels))))[0]
    if not np.allclose(recomputed, scores, rtol=0, atol=SCORE_TOLERANCE):
        return None
    return covariances(metric, predicted, labels, draw_resamples(len(labels), generator))


def generator_of(sweep: StoredSweep, task: str) -> np.random.Generator:
    """Return a random generator seeded by the sweep's seed and the task, so that every build of the report draws the same
    resamples of the task's test examples.
    """
    return np.random.default_rng([sweep.manifest.seed, zlib.crc32(task.encode())])


def _same_examples(predictions: Sequence[Predictions]) -> bool:
    return len({(len(each.labels), each.labels.tobytes()) for each in predictions}) == 1
