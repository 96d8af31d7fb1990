"""Confidence intervals of means over seeds, tests of differences corrected for multiple comparisons, detectable differences.

Both seeds *and* test examples are treated as random: would a method still be ahead if both were drawn again? Seeds are few
(2 to 5) and each method has its own; examples are many and shared by every method and seed. That is the design of a multi-reader
multi-case study (seeds read, examples are cases), and its estimator is used here:

    var(mean of a method)  =  s^2 / S  +  c
    var(difference a - b)  =  s_a^2 / S_a  +  s_b^2 / S_b  +  (c_a + c_b - 2 c_ab)

s^2 is the variance of the scores over the S seeds as measured. c is the covariance of two *different* seeds' scores over the
choice of examples, c_ab that of a seed of a and a seed of b: means of the off-diagonal entries of the covariance matrix of all
runs' scores, from a paired bootstrap of the metric over examples (`reports/statistics/resampling.py`). What examples do to one
seed alone is in s^2 already, and would be counted twice by adding a seed's whole bootstrap variance. Half of that part is also
a floor of s^2: scores of three seeds that err on different examples may agree by luck, and the bootstrap knows better. Seeds of
two methods are treated as independent, although they have the same numbers: a correlation would make differences smaller.

Quantiles are Student's t. Satterthwaite's degrees of freedom, (A + c)^2 / (A^2 / (S - 1)) for A = s^2 / S, trust an s^2 that is
small by luck: intervals of 3 seeds then hold the truth in 92 to 95 % of cases, depending on the true A / c. With A weighted by
1 + 2 / (S - 1) in that formula it is 94 to 96 % for 3 seeds, 95 % for 5 and 91 to 96 % for 2, whatever A / c (numerically). The
weight was chosen for that. Resampling seeds as well (the two-level bootstrap) is what this replaces: where seeds matter, its 95
% intervals of 3 seeds held the truth in 90 to 93 % of simulations, those of 2 in 85.

Which method is best is chosen by the same data, so every pair of a column counts as a comparison, not only those with the best:
Holm's correction over all of them keeps the chance of even one false "better" in a column at 5 %. Columns are not corrected for
each other.

Sources: Obuchowski and Rockette 1995 (Communications in Statistics: Simulation 24); Hillis 2007 (Statistics in Medicine 26),
readers nested within a test and the degrees of freedom; Welch 1947; Holm 1979; Efron and Tibshirani 1993 for the bootstrap of a
statistic. Pure numbers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
from scipy import stats

LEVEL = 0.95
SEED_VARIANCE_FLOOR = 0.5  # s^2 is at least this share of the variance that examples cause in one seed alone
DF_WEIGHT = (
    2.0  # a variance over seeds with d degrees of freedom is weighted by 1 + DF_WEIGHT / d in Satterthwaite's formula
)

Array = np.ndarray


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A mean or a difference with its variance; value in percent points, variances in squared percent points.

    seed_variances: (variance, degrees of freedom) of each s^2 / S.
    example_variance: the variance that comes from the choice of test examples.
    """

    value: float
    seed_variances: tuple[tuple[float, int], ...]
    example_variance: float = 0.0

    def __neg__(self) -> Estimate:
        return replace(self, value=-self.value)

    @property
    def std_error(self) -> float:
        """Standard error, in percent points."""
        return math.sqrt(sum(variance for variance, _ in self.seed_variances) + self.example_variance)

    @property
    def df(self) -> float:
        """Satterthwaite's degrees of freedom with weighted variances over seeds; infinite without any."""
        weighted = [((1 + DF_WEIGHT / df) * variance, df) for variance, df in self.seed_variances]
        squares = sum(variance**2 / df for variance, df in weighted)
        total = sum(variance for variance, _ in weighted) + self.example_variance
        return total**2 / squares if squares > 0 else math.inf

    @property
    def ci_half_width(self) -> float:
        """Half the width of the 95 % interval, not corrected for other comparisons."""
        return self.significance_threshold(1)

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval, not corrected for other comparisons."""
        return self.value - self.ci_half_width, self.value + self.ci_half_width

    @property
    def p_value(self) -> float:
        """Two-sided p-value of the value being zero; 1 where the scores do not vary at all, which proves nothing."""
        return float(2 * stats.t.sf(abs(self.value) / self.std_error, self.df)) if self.std_error > 0 else 1.0

    def significance_threshold(self, comparisons: int) -> float:
        """The smallest value that differs significantly from zero as one of this many comparisons (Bonferroni)."""
        return float(stats.t.isf((1 - LEVEL) / (2 * comparisons), self.df)) * self.std_error

    def detectable_difference(self, comparisons: int, power: float = 0.8) -> float:
        """The true difference that is found significant with this probability."""
        return self.significance_threshold(comparisons) + float(stats.t.ppf(power, self.df)) * self.std_error


class TaskScores:
    """The scores of one model and task.

    scores: per method those of its seeds, K altogether.
    covariance: [K, K], of all scores in that order over the choice of test examples; None where predictions are missing, so
        that intervals cover seeds alone.
    """

    def __init__(self, scores: Sequence[Sequence[float]], covariance: Array | None = None):
        self._scores = [np.asarray(each, dtype=float) for each in scores]
        ends = np.cumsum([len(each) for each in scores], dtype=int)
        self._slices = [slice(end - len(each), end) for end, each in zip(ends, scores, strict=True)]
        self._covariance = np.zeros((sum(map(len, scores)),) * 2) if covariance is None else covariance

    def mean(self, method: int) -> Estimate | None:
        """A method's mean over seeds; None with fewer than two seeds."""
        if len(self._scores[method]) < 2:
            return None
        return Estimate(
            value=float(self._scores[method].mean()),
            seed_variances=(self._seed_variance(method),),
            example_variance=self._example_covariance(method, method),
        )

    def difference(self, one: int, other: int) -> Estimate | None:
        """Mean of the first minus mean of the second; None when one of them has fewer than two seeds."""
        if min(len(self._scores[one]), len(self._scores[other])) < 2:
            return None
        own = self._example_covariance(one, one) + self._example_covariance(other, other)
        example_variance = own - 2 * self._example_covariance(one, other)
        return Estimate(
            value=float(self._scores[one].mean() - self._scores[other].mean()),
            seed_variances=(self._seed_variance(one), self._seed_variance(other)),
            example_variance=max(example_variance, 0.0),
        )

    def differences(self) -> dict[tuple[int, int], Estimate]:
        """The differences of all pairs (first index lower) that can be compared."""
        found = {pair: self.difference(*pair) for pair in combinations(range(len(self._scores)), 2)}
        return {pair: estimate for pair, estimate in found.items() if estimate is not None}

    def _seed_variance(self, method: int) -> tuple[float, int]:
        """s^2 / S, with its floor, and its degrees of freedom."""
        number = len(self._scores[method])
        block = self._block(method, method)
        alone = float(np.trace(block)) / number - _off_diagonal(block)
        return max(float(self._scores[method].var(ddof=1)), SEED_VARIANCE_FLOOR * alone) / number, number - 1

    def _example_covariance(self, one: int, other: int) -> float:
        """c of one method, or c_ab of two."""
        block = self._block(one, other)
        return max(_off_diagonal(block), 0.0) if one == other else float(block.mean())

    def _block(self, one: int, other: int) -> Array:
        return self._covariance[self._slices[one], self._slices[other]]


def _off_diagonal(block: Array) -> float:
    number = len(block)
    return float(block.sum() - np.trace(block)) / (number * (number - 1))


def averaged(estimates: Sequence[Estimate]) -> Estimate:
    """The unweighted mean of independent estimates (a method over tasks)."""
    number = len(estimates)
    return Estimate(
        value=sum(each.value for each in estimates) / number,
        seed_variances=tuple((variance / number**2, df) for each in estimates for variance, df in each.seed_variances),
        example_variance=sum(each.example_variance for each in estimates) / number**2,
    )


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values, in the order given: at most 5 % of families with any false one below 0.05."""
    order = np.argsort(p_values, kind="stable")
    factors = len(p_values) - np.arange(len(p_values))
    adjusted = np.minimum(np.maximum.accumulate(np.asarray(p_values, dtype=float)[order] * factors), 1.0)
    result = np.empty(len(p_values))
    result[order] = adjusted
    return result.tolist()
