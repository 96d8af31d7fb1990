"""The front of scores and parameters of cells that were searched for two objectives."""

from dataclasses import replace

import pytest

from reports.data.store import read
from reports.sections import front, protocol
from reports.statistics.analysis import analyze
from search_spaces import keys
from search_spaces.records import BUDGET
from tests.fixtures.report_store import FakeTrial, final, manifest, new_store, write_sweep

CELL = "minilm/mrpc/adapter"


def tried(name, trained, score, lr=1e-4, **more):
    counts = (trained - 20, trained - 10, trained)
    return FakeTrial(cell=CELL, name=name, counts=counts, scores=(score,), params={"lr": lr, "batch_size": 8}, **more)


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    uri = new_store(tmp_path_factory.mktemp("store"))
    budget = {"trials": 9, "final_seeds": 1, "search": "multi", "grace": 2, "brackets": 2}
    trials = [
        tried("large", 4_000, 90.0),
        tried("larger", 5_000, 90.0),  # no better than a smaller one
        tried("small", 1_000, 70.0),
        tried("small_too", 1_000, 70.0, lr=1e-5),  # the same with a lower learning rate
        tried("small_worse", 1_000, 60.0),
        tried("middle", 2_000, 80.0),
        tried("middle_worse", 2_500, 79.0),
        tried("stopped", 500, 95.0, state="STOPPED", tags={keys.REASON: "asha"}),
        tried("timed_out", 600, 85.0, state="STOPPED", tags={keys.REASON: BUDGET}),
        final(CELL, 100, 88.0),
    ]
    write_sweep(uri, manifest(["minilm"], ["mrpc"], ["adapter"], budget=budget), trials, {CELL: "large"})
    return analyze(read(uri, "sweep-1"))


def test_the_front_has_what_no_other_finished_configuration_beats(sweep):
    found = front.rows(sweep)
    assert list(found["trial"]) == ["small_too", "middle", "large"]
    assert list(found["trained"]) == [1_000, 2_000, 4_000]
    assert list(found["best_score"]) == [70.0, 80.0, 90.0]
    assert list(found["winner"]) == [False, False, True]


def test_the_table_says_that_these_are_no_results(sweep):
    text = front.text(sweep)
    assert "| Adapter | 1,000 | 0.00440 % | 70.00 | lr 1e-05, batch_size 8 | – |" in text
    assert "| Adapter | 4,000 | 0.0176 % | 90.00 | lr 0.0001, batch_size 8 | winner |" in text
    assert "**These are no results:**" in text
    assert "no results" in front.tables(sweep)["front"].caption
    assert "88.00" not in text, "no test score"


def test_the_protocol_says_how_configurations_were_proposed_and_compared(sweep):
    text = protocol.text(sweep)
    assert (
        "each with one seed, proposed for high scores with few trained parameters; ASHA stops weak ones from epoch 2"
        in text
    )
    assert "in 2 brackets (first rungs: epochs 2, 4), each trial compared only with those that train no more" in text


def test_a_search_for_one_objective_has_no_front(sweep):
    one = replace(sweep, manifest=replace(sweep.manifest, budget=replace(sweep.manifest.budget, search="tpe")))
    assert (front.text(one), front.rows(one), front.tables(one)) == ("", None, {})
