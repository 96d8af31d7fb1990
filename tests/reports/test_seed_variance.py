"""Moderated variances against second formulas and drawn variances; the bound of a collapse rate against scipy's."""

import numpy as np
import pytest
from scipy import stats

from reports.statistics.collapse_rate import largest_plausible_rate
from reports.statistics.intervals import LEVEL, TaskScores
from reports.statistics.seed_variance import (
    SampleVariance,
    SeedVariancePrior,
    Variance,
    estimate_priors,
    prior_df,
    variance_of_means,
)


def cell(value, seeds=3):
    return SampleVariance(value=value, df=seeds - 1, number=seeds)


def drawn(generator, cells, df, d0, scale=1.0):
    """Sample variances of cells whose true variances are scaled inverse chi-square; d0 None: all equal."""
    true = np.full(cells, scale) if d0 is None else scale * d0 / generator.chisquare(d0, cells)
    return [cell(float(value), df + 1) for value in true * generator.chisquare(df, cells) / df]


def test_a_moderated_variance_is_the_weighted_mean_of_its_own_and_the_pooled_one():
    prior = SeedVariancePrior(df=4.0, scale=3.0, scale_df=10.0)
    found = variance_of_means([(cell(6.0), prior)])
    assert found.value == pytest.approx((4 * 3 + 2 * 6) / 6 / 3)
    # own part: (4/3)^2 / (4 + 2); error of the pooled variance: (4 * 3 / 6 / 3)^2 / 10
    assert found.uncertainty == pytest.approx((4 / 3) ** 2 / 6 + (2 / 3) ** 2 / 10)


def test_with_equal_variances_a_difference_is_students_test_with_the_pooled_variance():
    scores = [[80.1, 82.5, 79.9, 81.0], [78.0, 83.5, 80.0]]
    variances = TaskScores(scores).sample_variances
    pooled = (3 * variances[0].value + 2 * variances[1].value) / 5
    prior = SeedVariancePrior(df=1e9, scale=pooled, scale_df=5.0)
    found = TaskScores(scores, priors=[prior, prior]).difference(0, 1)
    expected = stats.ttest_ind(*scores)
    assert found.value / found.std_error == pytest.approx(expected.statistic)
    assert found.df == pytest.approx(5.0, rel=1e-6)
    assert found.p_value == pytest.approx(expected.pvalue)


def test_a_cell_alone_on_its_task_keeps_students_interval():
    scores = [80.0, 81.0, 85.0]
    column = TaskScores([scores])
    column = column.moderated(estimate_priors([column.sample_variances]))
    expected = stats.t.interval(LEVEL, 2, np.mean(scores), stats.sem(scores))
    assert column.mean(0).interval == pytest.approx(expected)


@pytest.mark.parametrize(("d0", "low", "high"), [(2.0, 1.4, 2.9), (6.0, 4.0, 9.0), (None, 30.0, 128.0)])
def test_many_cells_show_how_alike_variances_are(d0, low, high):
    found = prior_df([drawn(np.random.default_rng(3), 400, 4, d0)])
    assert low < found < high


def test_cells_of_other_tasks_tell_how_alike_variances_are_whatever_their_scale():
    generator = np.random.default_rng(2)
    small = drawn(generator, 30, 2, None)
    large = [SampleVariance(value=1e4 * each.value, df=each.df, number=each.number) for each in small]
    one, other = estimate_priors([small, large])
    assert one.df == pytest.approx(other.df)
    assert other.scale == pytest.approx(1e4 * one.scale)
    assert one.df > 1.1 * prior_df([small])


def test_a_task_without_cells_has_no_prior_and_cells_without_any_spread_say_nothing():
    nothing, zeros = estimate_priors([[], [cell(0.0), cell(0.0)]])
    assert nothing is None
    assert zeros.df == pytest.approx(prior_df([]))
    assert variance_of_means([(cell(0.0), zeros)]).df == np.inf


def test_variances_of_different_priors_are_added_as_independent_ones():
    one, other = SeedVariancePrior(4.0, 3.0, 10.0), SeedVariancePrior(4.0, 3.0, 20.0)
    apart = variance_of_means([(cell(6.0), one)]) + variance_of_means([(cell(6.0), other)])
    assert variance_of_means([(cell(6.0), one), (cell(6.0), other)]) == apart
    together = variance_of_means([(cell(6.0), one), (cell(6.0), one)])
    assert together.value == pytest.approx(apart.value)
    assert together.df < apart.df
    assert Variance(value=2.0, uncertainty=1.0).scaled(0.5).df == pytest.approx(4.0)


@pytest.mark.parametrize(("collapsed", "finals"), [(0, 3), (1, 3), (2, 5), (0, 1)])
def test_the_bound_of_a_collapse_rate_is_clopper_and_pearsons(collapsed, finals):
    expected = stats.binomtest(collapsed, finals, alternative="less").proportion_ci(0.95, "exact").high
    assert largest_plausible_rate(collapsed, finals) == pytest.approx(expected)
    assert largest_plausible_rate(finals, finals) == 1.0


def test_three_finals_without_a_collapse_exclude_no_rate_below_63_percent():
    assert largest_plausible_rate(0, 3) == pytest.approx(1 - 0.05 ** (1 / 3))
