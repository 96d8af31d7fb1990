"""Confidence intervals of means over seeds, tests of differences corrected for multiple comparisons, detectable differences.

Seeds *and* test examples are treated as random: the question is whether a method would still be ahead with other seeds and other
examples. Seeds are few (2 to 5), and each method is trained on its own; examples are many, and all methods and seeds are
scored on the same ones. This is the design of a multi-reader multi-case study in radiology, with seeds as readers nested
within methods and examples as cases, and its estimator is used here:

    var(mean of a method)  =  s^2 / S  +  c
    var(difference a - b)  =  s_a^2 / S_a  +  s_b^2 / S_b  +  (c_a + c_b - 2 c_ab)

s^2 is the sample variance of the scores of the S seeds. c is the covariance, over the choice of examples, of the scores of two
*different* seeds of one method; c_ab is that of a seed of a and a seed of b. Both are means of entries (c: off-diagonal ones) of
the covariance matrix of all runs' scores, estimated by a paired bootstrap of the metric over examples
(`reports/statistics/resampling.py`). The part of a seed's variance over examples that it does not share with other seeds is
contained in s^2 already, so adding the whole bootstrap variance would count this part twice. s^2 is set to at least half of this
part, because the scores of three seeds may agree by chance although they err on different examples. The seeds of two methods are
treated as independent, although both use the same seed numbers: a positive correlation would make the true variance of the
difference smaller than estimated.

Quantiles are those of Student's t. With Satterthwaite's degrees of freedom, (A + c)^2 / (A^2 / (S - 1)) for A = s^2 / S,
intervals are too narrow when s^2 is small by chance: those of 3 seeds contain the true value in 92 to 95 % of cases, depending on
the true A / c. With A multiplied by 1 + 2 / (S - 1) in that formula they do in 94 to 96 % of cases for 3 seeds, 95 % for 5 and 91
to 96 % for 2, for all A / c (computed numerically); the factor was chosen for this. An earlier version resampled seeds as well
(two-level bootstrap); where scores vary much between seeds, its 95 % intervals contained the true value in 90 to 93 % of
simulations with 3 seeds and in 85 % with 2.

Which method is best is chosen by the same data, so every pair of methods of a column (one model and task) counts as a comparison,
not only the pairs with the best. Holm's correction over all of them keeps the probability of one or more false "better" in a
column at 5 % or less. There is no correction over several columns.

Sources: Obuchowski and Rockette 1995 (Communications in Statistics: Simulation 24); Hillis 2007 (Statistics in Medicine 26) for
nested readers and the degrees of freedom; Welch 1947; Holm 1979; Efron and Tibshirani 1993 for the bootstrap of a statistic.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
from scipy import stats

LEVEL = 0.95
# s^2 is at least this share of the variance over examples that seeds do not share.
SEED_VARIANCE_FLOOR = 0.5
# A variance over seeds with d degrees of freedom is multiplied by 1 + DF_WEIGHT / d in Satterthwaite's formula.
DF_WEIGHT = 2.0

Array = np.ndarray


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A mean or a difference of means with its variance; value in percent points, variances in squared percent points.

    seed_variances: (s^2 / S, its degrees of freedom S - 1) of each method involved.
    example_variance: variance due to the choice of test examples; 0 if it is not known.
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
        """Satterthwaite's degrees of freedom with the weights of `DF_WEIGHT`; infinite if all variances over seeds are 0."""
        weighted = [((1 + DF_WEIGHT / df) * variance, df) for variance, df in self.seed_variances]
        squares = sum(variance**2 / df for variance, df in weighted)
        total = sum(variance for variance, _ in weighted) + self.example_variance
        return total**2 / squares if squares > 0 else math.inf

    @property
    def ci_half_width(self) -> float:
        """Half the width of the 95 % interval in percent points, not corrected for multiple comparisons."""
        return self.significance_threshold(1)

    @property
    def interval(self) -> tuple[float, float]:
        """Lower and upper end of the 95 % interval in percent points, not corrected for multiple comparisons."""
        return self.value - self.ci_half_width, self.value + self.ci_half_width

    @property
    def p_value(self) -> float:
        """Two-sided p-value of the hypothesis that the true value is 0; 1 if the standard error is 0, as no test is possible."""
        return float(2 * stats.t.sf(abs(self.value) / self.std_error, self.df)) if self.std_error > 0 else 1.0

    def significance_threshold(self, comparisons: int) -> float:
        """Return the smallest value, in percent points, that is significantly different from 0 at 5 % when this many comparisons
        are made (Bonferroni's correction).
        """
        return float(stats.t.isf((1 - LEVEL) / (2 * comparisons), self.df)) * self.std_error

    def detectable_difference(self, comparisons: int, power: float = 0.8) -> float:
        """Return the true difference, in percent points, that would be significant with probability `power` when this many
        comparisons are made.
        """
        return self.significance_threshold(comparisons) + float(stats.t.ppf(power, self.df)) * self.std_error


class TaskScores:
    """The test scores of all methods on one model and task, and estimates from them; methods are numbered from 0.

    scores: for each method the scores of its seeds, percent points; K scores altogether.
    covariance: [K, K], covariance of all scores, in that order, over the choice of test examples, squared percent points. With
        None (predictions are missing), estimates contain the variance over seeds only.
    """

    def __init__(self, scores: Sequence[Sequence[float]], covariance: Array | None = None):
        self._scores = [np.asarray(each, dtype=float) for each in scores]
        ends = np.cumsum([len(each) for each in scores], dtype=int)
        self._slices = [slice(end - len(each), end) for end, each in zip(ends, scores, strict=True)]
        self._covariance = np.zeros((sum(map(len, scores)),) * 2) if covariance is None else covariance

    def mean(self, method: int) -> Estimate | None:
        """Return the mean over the seeds of a method; None with fewer than two seeds."""
        if len(self._scores[method]) < 2:
            return None
        return Estimate(
            value=float(self._scores[method].mean()),
            seed_variances=(self._seed_variance(method),),
            example_variance=self._example_covariance(method, method),
        )

    def difference(self, one: int, other: int) -> Estimate | None:
        """Return the mean of method `one` minus the mean of method `other`; None if either has fewer than two seeds."""
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
        """Return the differences of all pairs of methods (i, j), i < j, in which both have at least two seeds."""
        found = {pair: self.difference(*pair) for pair in combinations(range(len(self._scores)), 2)}
        return {pair: estimate for pair, estimate in found.items() if estimate is not None}

    def _seed_variance(self, method: int) -> tuple[float, int]:
        """Return s^2 / S of a method, not below its lower bound, and its degrees of freedom S - 1."""
        number = len(self._scores[method])
        block = self._block(method, method)
        alone = float(np.trace(block)) / number - _off_diagonal(block)
        return max(float(self._scores[method].var(ddof=1)), SEED_VARIANCE_FLOOR * alone) / number, number - 1

    def _example_covariance(self, one: int, other: int) -> float:
        """Return c of a method (`one` equals `other`), not below 0, or c_ab of two methods."""
        block = self._block(one, other)
        return max(_off_diagonal(block), 0.0) if one == other else float(block.mean())

    def _block(self, one: int, other: int) -> Array:
        """Return the covariances of the seeds of two methods, [S of one, S of other]."""
        return self._covariance[self._slices[one], self._slices[other]]


def _off_diagonal(block: Array) -> float:
    """Return the mean of the off-diagonal entries of a square matrix with at least two rows."""
    number = len(block)
    return float(block.sum() - np.trace(block)) / (number * (number - 1))


def averaged(estimates: Sequence[Estimate]) -> Estimate:
    """Return the unweighted mean of independent estimates, such as those of one method on several tasks."""
    number = len(estimates)
    return Estimate(
        value=sum(each.value for each in estimates) / number,
        seed_variances=tuple((variance / number**2, df) for each in estimates for variance, df in each.seed_variances),
        example_variance=sum(each.example_variance for each in estimates) / number**2,
    )


def holm(p_values: Sequence[float]) -> list[float]:
    """Return the p-values adjusted by Holm's method, in the order given.

    If those below 0.05 are called significant, the probability of one or more false positives among them is at most 5 %.
    """
    order = np.argsort(p_values, kind="stable")
    factors = len(p_values) - np.arange(len(p_values))
    adjusted = np.minimum(np.maximum.accumulate(np.asarray(p_values, dtype=float)[order] * factors), 1.0)
    result = np.empty(len(p_values))
    result[order] = adjusted
    return result.tolist()
