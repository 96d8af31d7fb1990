"""Confidence intervals of means over seeds, tests of differences between methods, detectable differences.

Seeds *and* test examples are treated as random: the question is whether a method would still be ahead with other seeds and
other examples. Seeds are few (2 to 5), and each method is trained on its own; examples are many, and all methods and seeds are
scored on the same ones. This is the design of a multi-reader multi-case study in radiology, with seeds as readers nested
within methods and examples as cases, and its estimator is used here:

    var(mean of a method)  =  s^2 / S  +  c
    var(difference a - b)  =  s_a^2 / S_a  +  s_b^2 / S_b  +  (c_a + c_b - 2 c_ab)

s^2 is the variance of the scores of the S seeds, moderated by that of the other cells (`reports/statistics/seed_variance.py`).
c is the covariance, over the choice of examples, of the scores of two *different* seeds of one method; c_ab is that of a seed
of a and a seed of b. Both are means of entries (c: off-diagonal ones) of the covariance matrix of all runs' scores, estimated
by a paired bootstrap of the metric over examples (`reports/statistics/resampling.py`). The part of a seed's variance over
examples that it does not share with other seeds is contained in s^2 already, so adding the whole bootstrap variance would
count this part twice. The sample variance is set to at least half of this part, because the scores of three seeds may agree by
chance although they err on different examples. The seeds of two methods are treated as independent, although both use the same
seed numbers: a positive correlation would make the true variance of the difference smaller than estimated.

Quantiles are those of Student's t with Satterthwaite's degrees of freedom: (A + c)^2 / (A^2 / d), where A is the variance over
seeds and d its degrees of freedom. Intervals are too narrow when A is small by chance; A is therefore multiplied by 1 + 2 / d
in that formula. The factor was chosen for unmoderated variances: means of 3 seeds are then covered in 94 to 96 % of cases, of
5 in 95 %, of 2 in 91 to 96 %, for all A / c (computed numerically).

Which method is best is chosen by the same data, so every pair of methods of a column (one model and task) counts as a
comparison, not only the pairs with the best (`reports/statistics/multiple_comparisons.py`). There is no correction over
several columns.

What the intervals cover in simulations, and what they do not (searches, splits, collapses), is in `docs/statistics.md`.

Sources: Obuchowski and Rockette 1995 (Communications in Statistics: Simulation 24); Hillis 2007 (Statistics in Medicine 26) for
nested readers and the degrees of freedom; Welch 1947; Efron and Tibshirani 1993 for the bootstrap of a statistic.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
from scipy import special

from reports.statistics.seed_variance import SampleVariance, SeedVariancePrior, Variance, variance_of_means

LEVEL = 0.95
# s^2 is at least this share of the variance over examples that seeds do not share.
SEED_VARIANCE_FLOOR = 0.5
# A variance over seeds with d degrees of freedom is multiplied by 1 + DF_WEIGHT / d in Satterthwaite's formula.
DF_WEIGHT = 2.0

Array = np.ndarray
Limits = tuple[float, float]
UNLIMITED: Limits = (-math.inf, math.inf)


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A mean or a difference of means with its variance; value in percent points, variances in squared percent points.

    seed_variance: variance over seeds. Variances of other sources that are estimated from few repetitions, and are independent of
        it, can be added to it.
    example_variance: variance due to the choice of test examples; 0 if it is not known.
    limits: lowest and highest possible true value, percent points; intervals are cut to them.
    """

    value: float
    seed_variance: Variance
    example_variance: float = 0.0
    limits: Limits = UNLIMITED

    def __neg__(self) -> Estimate:
        low, high = self.limits
        return replace(self, value=-self.value, limits=(-high, -low))

    @property
    def std_error(self) -> float:
        """Standard error, in percent points."""
        return math.sqrt(self.seed_variance.value + self.example_variance)

    @property
    def df(self) -> float:
        """Satterthwaite's degrees of freedom with the weight of `DF_WEIGHT`; infinite if the variance over seeds is 0."""
        own = self.seed_variance.df
        if math.isinf(own):
            return math.inf
        weighted = (1 + DF_WEIGHT / own) * self.seed_variance.value
        return own * (weighted + self.example_variance) ** 2 / weighted**2

    @property
    def ci_half_width(self) -> float:
        """Half the width of the 95 % interval in percent points, before it is cut to the limits; not corrected for multiple
        comparisons.
        """
        return self.significance_threshold(1)

    @property
    def interval(self) -> tuple[float, float]:
        """Ends of the 95 % interval in percent points, within the limits; not corrected for multiple comparisons."""
        low, high = self.limits
        return max(self.value - self.ci_half_width, low), min(self.value + self.ci_half_width, high)

    @property
    def p_value(self) -> float:
        """Two-sided p-value of the hypothesis that the true value is 0; 1 if the standard error is 0, as no test is possible."""
        return 2 * float(special.stdtr(self.df, -abs(self.value) / self.std_error)) if self.std_error > 0 else 1.0

    def significance_threshold(self, comparisons: int) -> float:
        """Return the smallest value, in percent points, that is significantly different from 0 at 5 % when this many comparisons
        are made (Bonferroni's correction).
        """
        return self._quantile(1 - (1 - LEVEL) / (2 * comparisons)) * self.std_error

    def detectable_difference(self, comparisons: int, power: float = 0.8) -> float:
        """Return the true difference, in percent points, that would be significant with probability `power` when this many
        comparisons are made.
        """
        return self.significance_threshold(comparisons) + self._quantile(power) * self.std_error

    def _quantile(self, probability: float) -> float:
        return float(special.stdtrit(self.df, probability))


class TaskScores:
    """The test scores of all methods on one model and task, and estimates from them; methods are numbered from 0.

    scores: for each method the scores of its seeds, percent points; K scores altogether.
    covariance: [K, K], covariance of all scores, in that order, over the choice of test examples, squared percent points. With
        None (predictions are missing), estimates contain the variance over seeds only.
    priors: for each method the prior that moderates its variance over seeds, or None; with `priors` None there is none for any.
    limits: lowest and highest possible score, percent points.
    """

    def __init__(
        self,
        scores: Sequence[Sequence[float]],
        covariance: Array | None = None,
        priors: Sequence[SeedVariancePrior | None] | None = None,
        limits: Limits = UNLIMITED,
    ):
        self._scores = [np.asarray(each, dtype=float) for each in scores]
        ends = np.cumsum([len(each) for each in scores], dtype=int)
        self._slices = [slice(end - len(each), end) for end, each in zip(ends, scores, strict=True)]
        self._covariance = np.zeros((sum(map(len, scores)),) * 2) if covariance is None else covariance
        self._priors: list[SeedVariancePrior | None] = [None] * len(scores) if priors is None else list(priors)
        self._limits = limits
        self._samples = [self._sample_variance(method) for method in range(len(scores))]

    @property
    def sample_variances(self) -> list[SampleVariance | None]:
        """The variance between the seeds of each method, not below its lower bound; None with fewer than two seeds."""
        return self._samples

    def moderated(self, priors: Sequence[SeedVariancePrior | None]) -> TaskScores:
        """Return the same scores with these priors, one per method."""
        found = copy(self)
        found._priors = list(priors)
        return found

    def mean(self, method: int) -> Estimate | None:
        """Return the mean over the seeds of a method; None with fewer than two seeds."""
        seed_variance = self._seed_variance(method)
        if seed_variance is None:
            return None
        return Estimate(
            value=float(self._scores[method].mean()),
            seed_variance=seed_variance,
            example_variance=self._example_covariance(method, method),
            limits=self._limits,
        )

    def difference(self, one: int, other: int) -> Estimate | None:
        """Return the mean of method `one` minus the mean of method `other`; None if either has fewer than two seeds."""
        seed_variance = self._seed_variance(one, other)
        if seed_variance is None:
            return None
        own = self._example_covariance(one, one) + self._example_covariance(other, other)
        example_variance = own - 2 * self._example_covariance(one, other)
        low, high = self._limits
        return Estimate(
            value=float(self._scores[one].mean() - self._scores[other].mean()),
            seed_variance=seed_variance,
            example_variance=max(example_variance, 0.0),
            limits=(low - high, high - low),
        )

    def differences(self) -> dict[tuple[int, int], Estimate]:
        """Return the differences of all pairs of methods (i, j), i < j, in which both have at least two seeds."""
        found = {pair: self.difference(*pair) for pair in combinations(range(len(self._scores)), 2)}
        return {pair: estimate for pair, estimate in found.items() if estimate is not None}

    def _seed_variance(self, *methods: int) -> Variance | None:
        """Return the variance over seeds of the mean of a method or of the difference of two; None with fewer than two seeds."""
        samples = [self._samples[method] for method in methods]
        priors = [self._priors[method] for method in methods]
        known = [(sample, prior) for sample, prior in zip(samples, priors, strict=True) if sample is not None]
        return variance_of_means(known) if len(known) == len(methods) else None

    def _sample_variance(self, method: int) -> SampleVariance | None:
        """Return s^2 of a method, not below its lower bound; None with fewer than two seeds."""
        number = len(self._scores[method])
        if number < 2:
            return None
        block = self._block(method, method)
        alone = float(np.trace(block)) / number - _off_diagonal(block)
        value = max(float(self._scores[method].var(ddof=1)), SEED_VARIANCE_FLOOR * alone)
        return SampleVariance(value=value, df=number - 1, number=number)

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
    total = sum((each.seed_variance for each in estimates), start=Variance(value=0.0, uncertainty=0.0))
    lows, highs = zip(*(each.limits for each in estimates), strict=True)
    return Estimate(
        value=sum(each.value for each in estimates) / number,
        seed_variance=total.scaled(1 / number**2),
        example_variance=sum(each.example_variance for each in estimates) / number**2,
        limits=(sum(lows) / number, sum(highs) / number),
    )
