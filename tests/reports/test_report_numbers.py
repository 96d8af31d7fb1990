"""The numbers of the report against `statistics`, tables of Student's t, and counting by hand."""

import re
import statistics

import pytest
from scipy import stats

from reports.data.cells import test_scores
from reports.data.store import read
from reports.sections import budget, cost, differences, parameters, results, trials, winners
from reports.statistics.analysis import analyze
from reports.statistics.edges import edge
from search_spaces.language import Cell, choice, log_uniform, uniform
from tests.fixtures.bulk_store import write_bulk
from tests.fixtures.report_store import KNOWN, MAJORITY, FakeTrial, manifest, new_store


@pytest.fixture
def sweep(known_sweep):
    return known_sweep


def cell(text):
    model, task, method = text.split("/")
    return Cell(model=model, task=task, method=method)


@pytest.mark.parametrize("name", KNOWN)
def test_mean_and_sample_deviation_are_those_of_the_finals_with_a_score(sweep, name):
    found = sweep.results[cell(name)]
    scores = [score for score in KNOWN[name] if score is not None]
    assert found.scores == tuple(scores)
    assert found.mean == pytest.approx(statistics.mean(scores))
    expected = statistics.stdev(scores) if len(scores) > 1 else None
    assert found.std == (None if expected is None else pytest.approx(expected))


def test_collapsed_and_diverged_finals_are_counted_and_stay_in_the_mean(sweep):
    found = sweep.results
    assert found[cell("minilm/stsb/full")].collapsed == 1
    assert found[cell("minilm/stsb/full")].mean == pytest.approx((0 + 88 + 89) / 3)
    assert found[cell("bert-base-uncased/mrpc/adapter")].diverged == 1
    assert len(found[cell("bert-base-uncased/mrpc/adapter")].scores) == 3


def test_a_collapsed_final_stands_beside_its_mean_and_interval_and_in_the_csv(sweep):
    text = differences.text(sweep)
    assert re.search(r"\| STS-B \| Fine-tuning \| 59.00 \\\[0?-?[0-9.]+, 100.00\\\], 1 of 3 collapsed \|", text)
    assert "**Collapsed finals** are counted in means and intervals." in text
    row = results.rows(sweep).set_index(["model", "task", "method"]).loc[("minilm", "stsb", "full")]
    assert row["mean_without_collapse"] == pytest.approx(88.5)
    assert row["collapse_rate_at_most"] == pytest.approx(stats.beta.ppf(0.95, 2, 2))


def test_cells_with_a_collapsed_or_diverged_final_neither_moderate_others_nor_are_moderated(sweep):
    column = sweep.columns["minilm", "stsb"]
    assert column.priors["full"] is None
    assert column.priors["adapter"] == column.priors["madapter"]
    variances = {"adapter": (0.5, 1), "madapter": (0.25, 2)}  # of 87, 88 and of 89, 89.5, 90, with degrees of freedom
    assert column.priors["adapter"].scale == pytest.approx(sum(v * df for v, df in variances.values()) / 3)
    assert column.means["full"].seed_variance.df == pytest.approx(2)
    assert column.means["full"].seed_variance.value == pytest.approx(statistics.variance((0.0, 88.0, 89.0)) / 3)
    assert column.means["adapter"].seed_variance.df > 1
    assert sweep.columns["bert-base-uncased", "mrpc"].priors["adapter"] is None


def test_every_cell_says_how_far_it_is(sweep):
    progress = {str(name): result.progress for name, result in sweep.results.items()}
    assert progress.pop("bert-base-uncased/stsb/full") == "finals unfinished"
    assert progress.pop("bert-base-uncased/stsb/adapter") == "search unfinished"
    assert progress.pop("bert-base-uncased/stsb/madapter") == "no winner"
    assert set(progress.values()) == {"complete"}


def test_scores_of_search_trials_are_refused(sweep):
    finals = sweep.trials[sweep.trials["phase"] == "final"]
    assert len(test_scores(finals, "accuracy")) == len(finals)
    with pytest.raises(ValueError, match=r"not finals \(trial minilm/mrpc/full-0, phase 'search'\)"):
        test_scores(sweep.trials, "accuracy")


def test_only_the_best_mean_of_a_column_with_a_worse_one_is_bold_and_equal_ones_share_it(sweep):
    text = results.text(sweep)
    assert "| Adapter | 4.40 % | **86.50 ± 0.50** ⇥ | 87.50 ± 0.71 §⇥ n = 2 | **87.00** |" in text
    # The only result of its column is not bold, and neither is a lead in a column in which no method is worse.
    assert "| Fine-tuning | 20.1 % | **88.20 ± 0.26** ⇥ | 89.00 (std n/a) §⇥ n = 1 | 88.60 |" in text
    assert "| MAdapter | 0.913 % | **88.20 ± 0.26** ⇥ | – § | – |" in text


def test_what_cannot_be_told_from_the_best_carries_the_tie_mark(sweep):
    """The store of the fixture has no predictions: variances over seeds of 1, 0.25 and 0.04, moderated, with 2 degrees each."""
    text = results.text(sweep)
    assert "| MAdapter | 4.40 % | 80.20 ± 0.20 ⇥ | " in text
    # 86.5 - 85.0, the last of three pairs to be tested, since all others differ: no correction.
    d0 = sweep.columns["minilm", "mrpc"].priors["full"].df
    first, other = ((d0 * 1.29 / 3 + 2 * variance) / (d0 + 2) / 3 for variance in (1.0, 0.25))
    own, shared = (first**2 + other**2) / (d0 + 2), (2 * d0 * 1.29 / 3 / (d0 + 2) / 3) ** 2 / (3 * 2 * d0 / (d0 + 2))
    df = (first + other) ** 2 / (own + shared)
    expected = 2 * stats.t.sf(1.5 / (first + other) ** 0.5, df)
    standing = sweep.standings[cell("minilm/mrpc/full")]
    assert standing.p_value == pytest.approx(expected)
    assert ("85.00 ± 1.00 ≈" in text) == (expected >= 0.05)
    # On the other task nothing is worse than the best: no mark.
    assert "87.50 ± 0.71 §⇥ n = 2" in text


def test_averages_need_every_task(sweep):
    expected = statistics.mean([statistics.mean((86.0, 86.5, 87.0)), statistics.mean((87.0, 88.0))])
    assert sweep.average_standings["minilm"]["adapter"].value == pytest.approx(expected)
    assert "madapter" not in sweep.average_standings["bert-base-uncased"]


def test_flags_name_the_cell_and_the_reason(sweep):
    text = results.text(sweep)
    assert (
        "- † finals that give one constant prediction, counted in the mean (exact 95 % bound of their rate): Fine-tuning on "
        "STS-B (1 of 3: a seed collapses with a probability of at most 86 %; the mean of the other 2 is 88.50)"
    ) in text
    assert "†⇥ 1 of 3 collapsed |" in text
    assert "one may still do so with a probability of up to 63 % (exact 95 % bound)" in text
    assert "counted in the mean where they have a score: Adapter on MRPC (1 of 3)" in text
    assert "- § finals are missing: Adapter on STS-B (2 of 3 finals, 1 failed)" in text
    assert "MAdapter on STS-B (no trial of the search finished, hence no winner, 0 of 3 finals)" in text
    assert "68.10 ± 0.10 ‡▾⇥ |" in text
    assert text.count("- ▾ the mean is not above that of a constant prediction\n") == 1


def test_the_row_of_constant_predictions_is_the_manifests(sweep):
    average = (MAJORITY["mrpc"] + MAJORITY["stsb"]) / 2
    assert f"| *Constant prediction* |  | 68.38 | 0.00 | {average:.2f} |" in results.text(sweep)


def test_parameter_shares_are_of_the_pretrained_encoder(sweep):
    text = parameters.text(sweep)
    assert f"| Adapter | 900,000 ({90_000_000 / 22_713_216:.2f} %) " in text
    assert f"1,000,000 ({100_000_000 / 109_482_240:.3f} %) | 2.0 % at r = 64 |" in text


@pytest.mark.parametrize(
    ("dimension", "value", "expected"),
    [
        (choice(1e-5, 5e-5, 1e-4), "1e-05", "lowest"),
        (choice(1e-5, 5e-5, 1e-4), "5e-05", ""),
        (choice(1e-5, 5e-5, 1e-4), "0.0001", "highest"),
        (choice(8, 16), "8", ""),
        (choice("snip", "magnitude", "random"), "snip", ""),
        (uniform(0.0, 1.0), "0.04", "lowest"),
        (uniform(0.0, 1.0), "0.06", ""),
        (uniform(0.0, 1.0), "0.96", "highest"),
        (log_uniform(1e-5, 1e-3), "1.2e-05", "lowest"),  # log10: 0.079 of 2, 4 %
        (log_uniform(1e-5, 1e-3), "2e-05", ""),  # 15 %, though 1 % of the plain range
        (log_uniform(1e-5, 1e-3), "nan", ""),
    ],
)
def test_a_winner_at_the_end_of_what_was_searched_is_flagged(dimension, value, expected):
    assert edge(dimension, value) == expected


def test_winners_show_configuration_validation_score_and_edge(sweep):
    row = winners.rows(sweep).set_index(["model", "task", "method"]).loc[("minilm", "mrpc", "adapter")]
    assert row["hyperparameters"] == "lr 0.0005, batch_size 8"
    assert (row["best_score"], row["best_epoch"], row["epochs"]) == (81.0, 2, 3)
    assert row["at_edge"] == "lr highest"
    assert list(winners.rows(sweep)["at_edge"] != "").count(True) == 10


def test_budgets_count_trials_by_how_they_ended_and_add_up_hours(sweep):
    table = budget.rows(sweep).set_index(["model", "task", "method"])
    row = table.loc[("minilm", "stsb", "adapter")]
    assert (row["planned"], row["tried"], row["done"], row["stopped"], row["cached"]) == (4, 4, 3, 1, 1)
    assert (row["finals"], row["finals_failed"]) == (2, 1)
    # Four learning rates and two batch sizes.
    assert (row["grid"], row["covered"]) == (8, 50.0)
    # Epochs of 36 s: 2 + 3 + 1 in the search (the re-used trial costs nothing), 3 finals of 2.
    assert row["search_hours"] == pytest.approx(6 * 0.01)
    assert row["final_hours"] == pytest.approx(6 * 0.01)
    assert row["epochs"] == 12
    # What a result costs does not depend on who paid for it.
    costs = cost.rows(sweep).set_index(["model", "task", "method"])
    assert costs.loc[("minilm", "stsb", "adapter"), "hours"] == pytest.approx((12 + 2) * 0.01)
    assert table.loc[("bert-base-uncased", "stsb", "madapter"), "failed"] == 4
    assert "| bert-base-uncased/stsb/madapter | FAILED | out of memory | 4 |" in budget.text(sweep)


def test_the_budget_shows_how_much_of_each_grid_was_tried(tmp_path):
    """As in the README's first command: 8 tries are the whole grid of one method and a ninth of another's."""
    record = manifest(["minilm"], ["mrpc"], ["full", "adapter", "madapter"], budget={"trials": 8, "final_seeds": 3})
    searched = record["methods"]["full"]["searched"]
    widths = {"r": {"choice": [16, 32, 64]}}
    record["methods"]["adapter"]["searched"] = {**searched, **widths}
    record["methods"]["madapter"]["searched"] = {**searched, **widths, "n_mid": {"choice": [1, 2, 3]}}
    uri = new_store(tmp_path)
    trials = [
        FakeTrial(cell=f"minilm/mrpc/{method}", name=f"{method}{i}", params={"lr": i})
        for method in ("full", "adapter", "madapter")
        for i in range(8)
    ]
    write_bulk(uri, record, trials, {})
    swept = analyze(read(uri, "sweep-1"))
    table = budget.rows(swept).set_index("method")
    assert list(table["grid"]) == [8, 24, 72]
    assert list(table["covered"]) == pytest.approx([100, 100 / 3, 100 / 9])
    text = budget.text(swept)
    assert "| MAdapter | 8 | 72 | 11 |" in text
    assert "unequal shares of the grids:** Fine-tuning 100 %, Adapter 33 %, MAdapter 11 %" in text
    assert "| *All* | 24 | – | – |" in text


def test_a_range_of_real_numbers_has_no_grid_to_cover(tmp_path):
    record = manifest(["minilm"], ["mrpc"], ["adapter"])
    record["methods"]["adapter"]["searched"] = {"lr": {"range": [1e-5, 1e-3], "log": True}}
    uri = new_store(tmp_path)
    write_bulk(uri, record, [FakeTrial(cell="minilm/mrpc/adapter", name="a")], {})
    swept = analyze(read(uri, "sweep-1"))
    assert "| 4 | 1 | – | – |" in budget.text(swept)
    assert "unequal shares" not in budget.text(swept)


def test_the_table_of_trials_has_every_trial_once_with_numbers_as_numbers(sweep):
    table = trials.rows(sweep)
    assert len(table) == 10 * 4 + 28 + 2 + 4
    assert not table.duplicated(["cell", "trial"]).any()
    assert table["param.lr"].dtype == float
