"""Intervals and corrected tests against second formulas, and against simulated methods whose true scores are known."""

import math
from dataclasses import dataclass, replace

import numpy as np
import pytest
from scipy import stats

from reports.statistics.intervals import LEVEL, TaskScores, averaged, holm
from reports.statistics.resampling import covariances, draw_resamples, resampled_scores
from tests.fixtures.simulated_methods import Accuracy, Matthews, Pearson
from trainables.tasks.metrics import FORMULAS

# Standard deviations of a seed's true score, in points: accuracy 1.2 and 3.7, MCC 1.8 and 5.5, Pearson's r 0.5 and 1.6.
# GLUE's small tasks show 0.1 to 3 (methods.md, section 5).
WORLDS = (Accuracy(0.05), Accuracy(0.15), Matthews(0.03), Matthews(0.09), Pearson(0.03), Pearson(0.09))


@dataclass(frozen=True, kw_only=True)
class Seen:
    """Shares of simulations: the truth within the interval of a mean, within that of a difference, a false "better" anywhere in
    the column, the truth within the interval of a two-level bootstrap.
    """

    mean: float
    difference: float
    false_better: float
    naive: float


def simulate(world, seeds, rounds, methods=4, examples=300, number=500):
    """The best of the column is chosen by the data in every round, as the report does."""
    generator = np.random.default_rng(20261121)
    counted = np.zeros(4)
    for _ in range(rounds):
        weights = draw_resamples(examples, generator, number)
        predictions, labels = world.draw(generator, methods, seeds, examples)
        scores = resampled_scores(world.metric, predictions, labels, np.ones((1, examples))).reshape(methods, seeds)
        column = TaskScores(scores, covariances(world.metric, predictions, labels, weights))
        mean, difference = column.mean(0), column.difference(0, 1)
        pairs = column.differences()
        corrected = dict(zip(pairs, holm([pair.p_value for pair in pairs.values()]), strict=True))
        best = int(scores.mean(1).argmax())
        low, high = two_level(world, predictions[:seeds], labels, weights, generator)
        counted += (
            abs(mean.value - world.truth) <= mean.ci_half_width,
            abs(difference.value) <= difference.ci_half_width,
            any(p < 1 - LEVEL and best in pair for pair, p in corrected.items()),
            low <= world.truth <= high,
        )
    return Seen(**dict(zip(Seen.__dataclass_fields__, counted / rounds, strict=True)))


def two_level(world, predictions, labels, weights, generator):
    """The usual bootstrap over seeds and examples, by percentiles: what is not used."""
    scores = resampled_scores(world.metric, predictions, labels, weights)
    chosen = generator.integers(0, len(predictions), scores.shape)
    return np.quantile(np.take_along_axis(scores, chosen, 1).mean(1), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])


@pytest.mark.parametrize("world", [Accuracy(0.1), Matthews(0.06), Pearson(0.06)], ids=lambda world: world.metric)
def test_intervals_hold_the_truth_and_no_difference_is_rarely_called_one(world):
    """200 rounds: 95 % with a standard error of 1.5, 5 % likewise."""
    seen = simulate(world, seeds=3, rounds=200, number=200)
    assert 0.90 <= seen.mean <= 0.995
    assert 0.90 <= seen.difference <= 0.995
    assert seen.false_better <= 0.095


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [3, 5])
@pytest.mark.parametrize("world", WORLDS, ids=lambda world: f"{world.metric}-{world.spread:.1f}")
def test_of_a_thousand_simulations_95_in_100_intervals_hold_the_truth(world, seeds):
    seen = simulate(world, seeds, rounds=1000)
    print(world.metric, f"seed std {world.spread:.2f}", f"seeds {seeds}", seen)  # noqa: T201
    assert 0.93 <= seen.mean <= 0.97
    assert 0.93 <= seen.difference <= 0.97
    assert seen.false_better <= 0.05


@pytest.mark.slow
@pytest.mark.parametrize("world", WORLDS, ids=lambda world: f"{world.metric}-{world.spread:.1f}")
def test_two_seeds_call_no_difference_one_hardly_more_often(world):
    seen = simulate(world, seeds=2, rounds=1000)
    print(world.metric, f"seed std {world.spread:.2f}", "seeds 2", seen)  # noqa: T201
    assert seen.false_better <= 0.065


def test_a_large_difference_is_found():
    generator = np.random.default_rng(3)
    labels = np.repeat([0.0, 1.0], 200)
    right = generator.random((6, 400)) < np.repeat([[0.7], [0.9]], 3, axis=0)
    predictions = np.where(right, labels, 1 - labels)
    scores = resampled_scores("accuracy", predictions, labels, np.ones((1, 400))).reshape(2, 3)
    column = TaskScores(scores, covariances("accuracy", predictions, labels, draw_resamples(400, generator)))
    assert column.difference(0, 1).p_value < 0.01


@pytest.mark.parametrize("metric", FORMULAS)
def test_a_resampled_score_is_the_metric_of_the_examples_drawn(metric):
    generator = np.random.default_rng(1)
    classes = 2 if metric in ("f1", "precision", "recall") else 3
    labels = generator.integers(0, classes, 60).astype(float)
    predictions = np.where(generator.random((4, 60)) < 0.6, labels, generator.integers(0, classes, (4, 60))).astype(
        float
    )
    predictions[3] = 1.0  # collapsed
    if metric in ("pearson", "spearman"):
        predictions[:3] += generator.normal(size=(3, 60)).round(1)
    weights = draw_resamples(60, generator, 8)
    found = resampled_scores(metric, predictions, labels, weights)
    for draw, row in zip(weights.astype(int), found, strict=True):
        chosen = np.repeat(np.arange(60), draw)
        expected = [100 * FORMULAS[metric](one[chosen], labels[chosen]) for one in predictions]
        assert row == pytest.approx(expected, abs=1e-9)


def test_the_draws_come_from_the_generator_and_keep_the_number_of_examples():
    one, again = (draw_resamples(50, np.random.default_rng(7), 20) for _ in range(2))
    other = draw_resamples(50, np.random.default_rng(8), 20)
    assert (one == again).all()
    assert (one != other).any()
    assert (one.sum(1) == 50).all()


def test_the_bootstrap_knows_the_variance_of_an_accuracy():
    """Of n independent examples right with probability p: p (1 - p) / (n - 1), in squared points."""
    labels = np.zeros(400)
    predictions = (np.arange(400) < 100)[None].astype(float)
    found = covariances("accuracy", predictions, labels, draw_resamples(400, np.random.default_rng(0), 20_000))
    assert found[0, 0] == pytest.approx(1e4 * 0.25 * 0.75 / 399, rel=0.04)


def test_without_predictions_a_difference_has_the_standard_error_of_welchs_test_and_hardly_fewer_degrees():
    first, second = [80.1, 82.5, 79.9, 81.0], [78.0, 83.5, 80.0]
    found = TaskScores([first, second]).difference(0, 1)
    expected = stats.ttest_ind(first, second, equal_var=False)
    assert found.value / found.std_error == pytest.approx(expected.statistic)
    assert 2 <= found.df <= expected.df


def test_without_predictions_a_mean_has_students_interval():
    scores = [80.0, 81.0, 85.0]
    found = TaskScores([scores]).mean(0)
    expected = stats.t.interval(LEVEL, 2, np.mean(scores), stats.sem(scores))
    assert (found.value - found.ci_half_width, found.value + found.ci_half_width) == pytest.approx(expected)


def test_with_equal_covariances_the_variance_is_that_of_crossed_random_effects():
    """s^2 / 3 + c for a mean; 2 s^2 / 3 + 2 (c - c_ab) for a difference of two methods."""
    own, c, between = 0.6, 0.5, 0.2
    covariance = np.full((6, 6), between)
    for start in (0, 3):
        covariance[start : start + 3, start : start + 3] = c
    covariance += own * np.eye(6)
    column = TaskScores([[80.0, 81.0, 82.0], [70.0, 71.0, 72.0]], covariance)
    assert column.mean(0).std_error == pytest.approx(math.sqrt(1 / 3 + c))
    assert column.difference(0, 1).std_error == pytest.approx(math.sqrt(2 / 3 + 2 * (c - between)))
    # Satterthwaite's, with 1/3 weighted by 1 + 2 / 2: (2/3 + 0.5)^2 / ((2/3)^2 / 2).
    assert column.mean(0).df == pytest.approx((7 / 6) ** 2 / (2 / 9))


def test_equal_scores_of_seeds_that_err_on_different_examples_are_not_certainty():
    covariance = np.full((2, 2), 0.5) + 0.8 * np.eye(2)
    assert TaskScores([[80.0, 80.0]], covariance).mean(0).std_error == pytest.approx(math.sqrt(0.4 / 2 + 0.5))


def test_a_single_seed_has_no_interval_and_no_spread_at_all_proves_nothing():
    column = TaskScores([[80.0], [81.0, 82.0], [83.0, 83.0], [84.0, 84.0]])
    assert column.mean(0) is None
    assert column.difference(0, 1) is None
    assert column.difference(2, 3).p_value == pytest.approx(1.0)


def test_holm_agrees_with_its_definition():
    p_values = [0.01, 0.04, 0.03, 0.005]
    # Sorted: 0.005 * 4, 0.01 * 3, 0.03 * 2, 0.04 * 1, each at least the one before.
    assert holm(p_values) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == pytest.approx([1.0, 1.0])


def test_the_smallest_visible_difference_is_where_a_corrected_test_begins_to_speak():
    found = TaskScores([[80.0, 81.0, 82.0], [70.0, 71.0, 72.5]]).difference(0, 1)
    edge = replace(found, value=found.significance_threshold(6))
    assert 6 * edge.p_value == pytest.approx(1 - LEVEL)
    assert found.detectable_difference(6) > found.significance_threshold(6)


def test_the_average_over_tasks_has_the_variance_of_a_mean_of_independent_ones():
    one, other = (TaskScores([scores]).mean(0) for scores in ([80.0, 81.0, 82.0], [60.0, 64.0, 68.0]))
    found = averaged([one, other])
    assert found.value == pytest.approx((81 + 64) / 2)
    assert found.std_error == pytest.approx(math.sqrt(one.std_error**2 + other.std_error**2) / 2)
