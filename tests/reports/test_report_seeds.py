"""Reports of searches that try each configuration on several seeds: means decide, and every table says so."""

import math

import pytest

from reports.build import summary
from reports.data.store import read
from reports.plots.search_history import rows as search_rows
from reports.sections import budget, winners
from reports.statistics.analysis import analyze
from tests.fixtures.bulk_store import write_bulk
from tests.fixtures.report_store import FakeTrial, final, manifest, new_store

CELL = "minilm/mrpc/adapter"
# Best scores of two seeds by learning rate; None: that seed failed.
TRIED = {1e-5: (90.0, 60.0), 5e-5: (80.0, 80.0), 1e-4: (95.0, None), 5e-4: (50.0, 51.0)}


def trials(scores):
    found = []
    for lr, seeds in scores.items():
        for seed, score in enumerate(seeds):
            given = {"cell": CELL, "name": f"{lr}-{seed}", "seed": seed, "params": {"lr": lr, "batch_size": 8}}
            ends = {"scores": (), "state": "FAILED", "counts": None} if score is None else {"scores": (40.0, score)}
            found.append(FakeTrial(**given, **ends))
    return found


def stored(folder, found, winner="5e-05-0"):
    uri = new_store(folder)
    record = manifest(
        ["minilm"], ["mrpc"], ["adapter"], budget={"trials": 4, "search_seeds": 2, "final_seeds": 2, "grace": 20}
    )
    write_bulk(uri, record, found, {CELL: winner} if winner else {})
    return uri


@pytest.fixture(scope="module")
def uri(tmp_path_factory):
    finals = [final(CELL, seed, 80.0 + seed, params={"lr": 5e-5, "batch_size": 8}) for seed in (2, 3)]
    return stored(tmp_path_factory.mktemp("seeds"), trials(TRIED) + finals)


@pytest.fixture(scope="module")
def sweep(uri):
    return analyze(read(uri, "sweep-1"))


def test_a_configuration_has_the_mean_of_its_seeds_and_the_worst_of_their_ends(sweep):
    table = sweep.configurations.set_index("param.lr")
    assert list(table["best_score"])[:2] == pytest.approx([75.0, 80.0])
    assert math.isnan(table.loc["0.0001", "best_score"])
    assert list(table["state"]) == ["DONE", "DONE", "FAILED", "DONE"]
    assert list(table["seeds"])[1] == ("5e-05-0", "5e-05-1")


def test_a_configuration_with_a_seed_left_to_run_is_running(tmp_path):
    sweep = analyze(read(stored(tmp_path, trials(TRIED)[:-1], None), "sweep-1"))
    assert list(sweep.configurations["state"]) == ["DONE", "DONE", "FAILED", "RUNNING"]
    assert next(iter(sweep.results.values())).progress == "search unfinished"


def test_the_winner_is_shown_with_its_mean_and_is_not_called_beaten_by_a_lucky_seed(sweep):
    text = winners.text(sweep)
    assert "| lr 5e-05, batch_size 8 | 80.00 | 2 of 2 | 0 |" in text
    assert "the mean over 2 seeds" in text
    assert "Not the best" not in text


def test_a_winner_by_a_lucky_seed_is_named(tmp_path):
    text = winners.text(analyze(read(stored(tmp_path, trials(TRIED), "1e-05-0"), "sweep-1")))
    assert f"**Not the best on the validation split:** the winners of {CELL}." in text


def test_tries_are_configurations(sweep):
    (curve,) = sweep.expected_best.values()
    assert len(curve) == 4
    # The one that lost a seed counts with the lowest: (75 + 80 + 50.5 + 50.5) / 4.
    assert (curve[0], curve[-1]) == pytest.approx((64.0, 80.0))
    row = budget.rows(sweep).iloc[0]
    assert (row["planned"], row["tried"]) == (8, 8)
    assert (row["grid"], row["covered"]) == (8, 50.0), "4 of 8 configurations, each on 2 seeds"


def test_all_seeds_of_the_winner_are_marked(sweep):
    assert sweep.winning_trials == {"5e-05-0", "5e-05-1"}
    assert set(search_rows(sweep).query("winner")["trial"]) == {"5e-05-0", "5e-05-1"}


def test_the_report_says_how_many_seeds_chose(sweep):
    text = summary(sweep)
    assert "each with 2 seeds; none of them is stopped by ASHA" in text
    assert "score on the validation split, mean over 2 seeds: a part of the training data" in text
    assert "each on 2 seeds, which are counted below as trials" in text
    assert "Seeds: 2, the same for every configuration" in text
