"""A report on cells that were searched several times, and on winners that stand at the end of their range."""

import statistics
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from reports.data.store import read
from reports.sections import answer, budget, differences, protocol, results, search_quality, second_look, trace, winners
from reports.statistics.analysis import analyze
from reports.statistics.edges import as_code, wider
from reports.statistics.searches import search_means
from search_spaces import keys
from search_spaces.language import Cell, choice, log_uniform, uniform
from tests.fixtures.report_store import FakeTrial, final, manifest, new_store, write_sweep

SEARCHES = 3
ADAPTER, FULL = "minilm/mrpc/adapter", "minilm/mrpc/full"
# Test scores of two finals of each search.
SCORES = {ADAPTER: [(80.0, 82.0), (84.0, 86.0), (82.0, 82.5)], FULL: [(70.0, 70.2), (75.0, 75.2), (73.0, 73.4)]}
RATES = (1e-5, 5e-5, 1e-4, 5e-4)


def trials_of(cell, number, best=5e-4):
    """Three configurations of a search, and its finals. The one with the learning rate `best` wins."""
    tags = {keys.SEARCH: str(number)} if number else {}
    found = [
        FakeTrial(
            cell=cell,
            name=f"{cell}-{number}-{lr:g}",
            params={"lr": lr, "batch_size": 8},
            seed=1000 * number,
            scores=(60.0 + number, 81.0 if lr == best else 70.0),
            tags=tags,
        )
        for lr in RATES
    ]
    finals = [
        final(
            cell,
            1000 * number + 1 + i,
            score,
            name=f"{cell}-{number}-final-{i}",
            tags=tags,
            params={"lr": best, "batch_size": 8},
        )
        for i, score in enumerate(SCORES[cell][number])
    ]
    return [*found, *finals]


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    uri = new_store(tmp_path_factory.mktemp("store"))
    record = manifest(
        ["minilm"], ["mrpc"], ["full", "adapter"], budget={"trials": 4, "final_seeds": 2, "searches": SEARCHES}
    )
    record["tasks"]["mrpc"]["more_splits"] = ["beef", "cafe"]
    best = {ADAPTER: (5e-4, 5e-4, 1e-4), FULL: (5e-5, 1e-4, 5e-5)}
    found = [
        trial for cell in best for number in range(SEARCHES) for trial in trials_of(cell, number, best[cell][number])
    ]
    won = {cell: f"{cell}-0-{rates[0]:g}" for cell, rates in best.items()}
    write_sweep(uri, record, found, won)
    stored = read(uri, "sweep-1")
    more = {(cell, n): f"{cell}-{n}-{rates[n]:g}" for cell, rates in best.items() for n in range(SEARCHES)}
    assert stored.winners == {(cell, 0): name for cell, name in won.items()}
    return analyze(replace(stored, winners=more))


def test_mean_and_deviation_are_those_of_the_searches(sweep):
    result = sweep.results[Cell(model="minilm", task="mrpc", method="adapter")]
    means = [81.0, 85.0, 82.25]
    assert result.repeats == pytest.approx(means)
    assert (result.mean, result.std) == (pytest.approx(np.mean(means)), pytest.approx(np.std(means, ddof=1)))
    assert (result.planned, result.progress, result.mixed) == (6, "complete", False)
    assert result.searches == (0, 0, 1, 1, 2, 2)


def test_the_interval_is_students_over_the_searches(sweep):
    """Without predictions nothing else varies: the means of k searches, whose variance is moderated by that of the other cell."""
    found = sweep.standings[Cell(model="minilm", task="mrpc", method="adapter")].interval
    variance = sweep.columns["minilm", "mrpc"].means["adapter"].seed_variance
    half = stats.t.ppf(0.975, variance.df) * variance.value**0.5
    assert found == pytest.approx((82.75 - half, 82.75 + half))
    assert variance.df > SEARCHES - 1
    own, other = (statistics.variance(map(statistics.mean, SCORES[cell])) / SEARCHES for cell in (ADAPTER, FULL))
    assert own < variance.value < other


def test_the_report_says_that_searches_were_varied(sweep):
    assert "## Which differences are real over 3 searches per cell" in differences.text(sweep)
    text = results.text(sweep)
    assert "Seeds: 2 per search" in text
    assert "Each cell was searched 3 times" in differences.text(sweep)
    assert "of the 3 searches, each the mean of its 2 finals" in text
    assert "configurations found" not in text + differences.text(sweep)
    assert "up to 4 configurations per search" in protocol.text(sweep)
    assert "f00d beef cafe" in protocol.text(sweep)
    assert "3 searches per cell" in budget.text(sweep)
    assert sweep.spending["planned"].tolist() == [12, 12]


def test_every_search_has_its_winner_and_its_runs(sweep):
    table = winners.rows(sweep).set_index(["method", "search"])
    assert list(table.loc["adapter"]["at_edge"]) == ["lr highest", "lr highest", ""]
    assert "Adapter, search 3" in winners.text(sweep)
    rows = trace.rows(sweep).set_index(["method", "search"])
    assert rows.loc[("adapter", 1), "final_seeds"] == "1001 1002"
    assert rows.loc[("adapter", 1), "data_fingerprint"] == "beef"


def test_expected_scores_are_of_one_search(sweep):
    assert {len(curve) for curve in sweep.expected_best.values()} == {4}
    assert "Tries" in search_quality.tables(sweep)["search"].header


def test_search_means_reduce_scores_and_covariance_alike():
    rng = np.random.default_rng(0)
    draws = rng.normal(size=(500, 7)) @ rng.normal(size=(7, 7))
    scores, numbers = [[1.0, 3.0, 10.0], [4.0, 6.0, 8.0, 5.0]], [[0, 0, 1], [0, 1, 1, 0]]
    means, covariance = search_means(scores, numbers, np.cov(draws.T))
    assert means == [[2.0, 10.0], [4.5, 7.0]]
    columns = [draws[:, :2].mean(1), draws[:, 2], draws[:, [3, 6]].mean(1), draws[:, [4, 5]].mean(1)]
    assert covariance == pytest.approx(np.cov(np.array(columns)))
    assert search_means(scores, numbers, None)[1] is None


def test_one_search_speaks_for_the_configurations_found(tmp_path):
    uri = new_store(tmp_path)
    record = manifest(["minilm"], ["mrpc"], ["full", "adapter"], budget={"trials": 4, "final_seeds": 2})
    write_sweep(
        uri, record, [trial for cell in SCORES for trial in trials_of(cell, 0)], {c: f"{c}-0-0.0005" for c in SCORES}
    )
    found = analyze(read(uri, "sweep-1"))
    assert "## Which differences are real for the configurations found" in differences.text(found)
    assert "Each cell was searched once" in differences.text(found)
    text = results.text(found)
    # The winner's learning rate is the highest of four: the table says so, and what to write instead.
    assert "⇥ a winning value is the lowest or highest searched" in text
    assert "- Adapter: `lr=choice(1e-05, 5e-05, 0.0001, 0.0005, 0.0025)`" in text
    assert "The best learning rate is the highest tried for Fine-tuning and Adapter." in answer.text(found)


def test_a_row_that_learns_nothing_gets_a_wider_learning_rate_on_both_sides(tmp_path):
    uri = new_store(tmp_path)
    record = manifest(["minilm"], ["mrpc"], ["adapter"], budget={"trials": 4, "final_seeds": 2})
    trials = [
        replace(trial, test={"accuracy": 68.38}) if trial.phase == "final" else trial
        for trial in trials_of(ADAPTER, 0, 1e-4)
    ]
    write_sweep(uri, record, trials, {ADAPTER: f"{ADAPTER}-0-0.0001"})
    (line,) = second_look.advice(analyze(read(uri, "sweep-1")), "minilm")
    assert "`lr=choice(2e-06, 1e-05, 5e-05, 0.0001, 0.0005, 0.0025)`" in line


@pytest.mark.parametrize(
    ("dimension", "end", "code"),
    [
        (choice(1e-4, 3e-4, 1e-3), "highest", "choice(0.0001, 0.0003, 0.001, 0.0033)"),
        (choice(16, 32, 64), "highest", "choice(16, 32, 64, 128)"),
        (choice(16, 32, 64), "lowest", "choice(8, 16, 32, 64)"),
        (choice(1, 2, 3), "lowest", "choice(1, 2, 3)"),
        (choice(1e-3), "highest", "choice(0.001, 0.01)"),
        (choice(1e-3), "lowest", "choice(0.0001, 0.001)"),
        (choice(0.0, 0.1, 0.3), "highest", "choice(0.0, 0.1, 0.3, 0.5)"),
        (log_uniform(1e-5, 1e-3), "highest", "log_uniform(1e-05, 0.01)"),
        (log_uniform(1e-5, 1e-3), "lowest", "log_uniform(1e-06, 0.001)"),
        (uniform(0.0, 0.5), "highest", "uniform(0, 1)"),
    ],
)
def test_a_wider_range_has_room_beyond_the_end(dimension, end, code):
    found = as_code(wider(dimension, end))
    assert found == code.replace("0.0,", "0,") if "choice(0.0" in code else found == code
