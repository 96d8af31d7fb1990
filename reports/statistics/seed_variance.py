"""Variances of test scores between the seeds of a cell, moderated by those of the other cells (empirical Bayes).

A cell has 2 to 5 final seeds, so that its own sample variance s^2 says little: with 2 seeds its standard error is 141 %. The
methods of a task are trained alike, and their variances are similar without being equal. They are modelled as draws from a
distribution (Smyth 2004), which is estimated from all cells of a model:

    s_i^2 ~ sigma_i^2 chi^2(d_i) / d_i        d_i = number of seeds - 1
    1 / sigma_i^2 ~ chi^2(d0) / (d0 s0^2)     a scaled inverse chi-square distribution

    moderated variance  =  (d0 s0^2 + d_i s_i^2) / (d0 + d_i)        with d0 + d_i degrees of freedom

s0^2 belongs to one task, since metrics and tasks differ in scale: the pooled variance of its cells. d0 says how similar
variances are (0: not at all; infinite: equal) and is shared by the tasks of a model. It is estimated from the likelihood of
F(d_i, d0) of s_i^2 / scale, integrated over the scale of each task, times a log-normal prior of `PRIOR_MEDIAN` and
`PRIOR_LOG_STD`. The prior matters for few cells: 4 cells of 2 seeds cannot tell d0 = 3 from infinity. Its middle 95 % (1.1 to
57) mean that standard deviations of methods differ by typical factors of 1.1 to 2.5.

Three choices differ from Smyth's, who had thousands of cells. (1) The pooled variance takes the place of his s0^2, which is
lower when variances differ; with his, 4 alike methods of 2 seeds whose standard deviations have a logarithmic spread of 0.5
get a false "better" in 7 % of simulations instead of 5 to 6 %. (2) The estimate of s0^2 has its own error, which all cells of
the task share: it enters the degrees of freedom, with f0 = sum of d_i d0 / (d_i + d0). With equal variances (d0 infinite), a
cell then has the degrees of freedom of the pooled variance, and alone on its task exactly its own. (3) A likelihood instead of
moments of log s^2, because two seeds often have equal scores (log 0).

A cell with a collapsed or diverged final keeps its own variance and is left out of the estimates.

Sources: Smyth 2004 (Statistical Applications in Genetics and Molecular Biology 3); Phipson et al. 2016 (Annals of Applied
Statistics 10) on cells that do not fit; Satterthwaite 1946. Simulations: `docs/statistics.md`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

PRIOR_MEDIAN = 8.0
PRIOR_LOG_STD = 1.0
_DF_GRID = np.geomspace(0.5, 128.0, 17)
_LOG_SCALES = np.linspace(-6.0, 6.0, 41)  # of the scale, relative to the pooled variance


@dataclass(frozen=True, kw_only=True)
class Variance:
    """An estimate of a variance, or a sum of independent ones.

    value: the estimate, in squared percent points.
    uncertainty: half of the variance of `value`, which is value^2 / degrees of freedom for a multiple of a chi-square variable.
    """

    value: float
    uncertainty: float

    def __add__(self, other: Variance) -> Variance:
        return Variance(value=self.value + other.value, uncertainty=self.uncertainty + other.uncertainty)

    def scaled(self, factor: float) -> Variance:
        """Return the variance of `sqrt(factor)` times the variable."""
        return Variance(value=factor * self.value, uncertainty=factor**2 * self.uncertainty)

    @property
    def df(self) -> float:
        """Satterthwaite's degrees of freedom; infinite for a variance of 0."""
        return self.value**2 / self.uncertainty if self.uncertainty > 0 else math.inf


@dataclass(frozen=True, kw_only=True)
class SampleVariance:
    """The variance s^2 between the scores of a cell's finals, squared percent points; `number`: how many finals it has."""

    value: float
    df: int
    number: int


@dataclass(frozen=True)
class SeedVariancePrior:
    """The distribution from which the variances of one model and task are drawn.

    df: d0. scale: s0^2, squared percent points. scale_df: f0, the degrees of freedom of the estimate of s0^2.
    """

    df: float
    scale: float
    scale_df: float

    def moderated(self, sample: SampleVariance) -> float:
        """Return the moderated variance of a cell, squared percent points."""
        return (self.df * self.scale + sample.df * sample.value) / (self.df + sample.df)

    def prior_part(self, sample: SampleVariance) -> float:
        """Return the part of the moderated variance that comes from s0^2, squared percent points."""
        return self.df * self.scale / (self.df + sample.df)


def estimate_priors(tasks: Sequence[Sequence[SampleVariance]]) -> list[SeedVariancePrior | None]:
    """Return the prior of each task of one model from the sample variances of its cells; None for a task without cells."""
    df = prior_df(tasks)
    return [_prior(cells, df) if cells else None for cells in tasks]


def variance_of_means(cells: Sequence[tuple[SampleVariance, SeedVariancePrior | None]]) -> Variance:
    """Return the variance over seeds of a sum or difference of the means of independent cells, each with its prior.

    A cell without a prior keeps its sample variance. Errors of s0^2 add up for cells with the same prior.
    """
    value = uncertainty = 0.0
    shared: dict[SeedVariancePrior, float] = {}
    for sample, prior in cells:
        own = (sample.value if prior is None else prior.moderated(sample)) / sample.number
        value += own
        uncertainty += own**2 / (sample.df + (prior.df if prior else 0.0))
        if prior is not None:
            shared[prior] = shared.get(prior, 0.0) + prior.prior_part(sample) / sample.number
    uncertainty += sum(part**2 / prior.scale_df for prior, part in shared.items())
    return Variance(value=value, uncertainty=uncertainty)


def prior_df(tasks: Sequence[Sequence[SampleVariance]]) -> float:
    """Return the estimate of d0 for all cells of a model, grouped by task: exp of the posterior mean of log d0."""
    log_weights = -0.5 * ((np.log(_DF_GRID) - math.log(PRIOR_MEDIAN)) / PRIOR_LOG_STD) ** 2
    for cells in tasks:
        log_weights = log_weights + _log_likelihood(cells)
    weights = np.exp(log_weights - log_weights.max())
    return float(np.exp(weights @ np.log(_DF_GRID) / weights.sum()))


def _prior(cells: Sequence[SampleVariance], df: float) -> SeedVariancePrior:
    scale_df = sum(df * cell.df / (df + cell.df) for cell in cells)
    return SeedVariancePrior(df, _pooled(cells), scale_df)


def _pooled(cells: Sequence[SampleVariance]) -> float:
    return sum(cell.df * cell.value for cell in cells) / sum(cell.df for cell in cells)


def _log_likelihood(cells: Sequence[SampleVariance]) -> np.ndarray:
    """Return the logarithm of the likelihood of each d0 of the grid, up to a constant, integrated over the scale of one task."""
    if len(cells) < 2 or _pooled(cells) == 0:
        return np.zeros(len(_DF_GRID))
    ratio = np.array([cell.value for cell in cells]) / _pooled(cells)
    d = np.array([float(cell.df) for cell in cells])
    d0, scale = _DF_GRID[:, None, None], np.exp(_LOG_SCALES)[:, None]  # [grid, scales, cells]
    density = (
        d / 2 * np.log(d / (d0 * scale))
        - (d + d0) / 2 * np.log1p(d * ratio / (d0 * scale))
        - special.betaln(d / 2, d0 / 2)
    )
    return special.logsumexp(density.sum(axis=2), axis=1)
