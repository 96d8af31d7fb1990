"""A time budget in the report: that it ended the searches, what that made unequal, and finals that no longer count."""

import pytest

from reports.data.cells import check_selection
from reports.data.store import read
from reports.sections import SECTIONS, answer, budget, results, winners
from reports.statistics.analysis import analyze
from search_spaces import keys
from search_spaces.language import Cell
from tests.fixtures.report_store import FakeTrial, final, manifest, new_store, write_sweep

ADAPTER, MADAPTER = "minilm/mrpc/adapter", "minilm/mrpc/madapter"
STOPPED = {keys.REASON: "budget"}


def sweep_of(folder, trials, happened, won=None):
    uri, record = new_store(folder), manifest(["minilm"], ["mrpc"], ["adapter", "madapter"])
    write_sweep(uri, record, trials, won, happened)
    return analyze(read(uri, "sweep-1"))


@pytest.fixture(scope="module")
def ended(tmp_path_factory):
    """Three tries of one cell and one of the other, of four planned; both have their finals."""
    trials = [FakeTrial(cell=ADAPTER, name=f"a{i}", scores=(60.0 + i, 70.0 + i)) for i in range(2)]
    trials += [FakeTrial(cell=ADAPTER, name="a2", scores=(72.0,), state="STOPPED", tags=STOPPED)]
    trials += [FakeTrial(cell=MADAPTER, name="m0", scores=(65.0,), state="STOPPED", tags=STOPPED)]
    trials += [final(cell, seed, 80.0 + seed) for cell in (ADAPTER, MADAPTER) for seed in range(3)]
    return sweep_of(tmp_path_factory.mktemp("ended"), trials, {keys.CURTAILED: "40h"}, {ADAPTER: "a2", MADAPTER: "m0"})


def test_the_head_of_the_report_says_that_a_time_budget_ended_the_searches(ended):
    head = answer.text(ended)
    assert "> **Changed from the space as written:** --budget 40h ended the searches early" in head
    assert ended.manifest.reductions == ("--budget 40h ended the searches early",)
    assert "So far" not in head


def test_the_budget_shows_what_became_unequal(ended):
    text = budget.text(ended)
    assert "**The cells have tried different numbers of configurations (1 to 3).**" in text
    assert "**--budget 40h ended the searches of all cells at one moment:** 2 of 2 cells tried fewer" in text
    assert "than planned, and 2 running trials stopped there." in text


def test_every_table_of_scores_names_the_tries_that_there_were(ended):
    for section in (results, winners):
        assert "Tries: 1 to 3 configurations per cell, until a time budget ended the searches." in section.text(ended)


def test_what_the_budget_stopped_can_win_and_is_what_others_are_compared_with(ended):
    assert "Not the best on the validation split" not in winners.text(ended)
    lines = winners.tables(ended)["winners"].rows
    assert [line[6] for line in lines] == ["0", "0"], "no ties"


def test_a_cell_that_the_budget_left_without_a_result_has_no_winner_rather_than_more_to_search(tmp_path):
    failed = [FakeTrial(cell=ADAPTER, name="a", state="FAILED", scores=(), counts=None)]
    for name, happened, expected in (("cut", {keys.CURTAILED: "1m"}, "no winner"), ("not", {}, "search unfinished")):
        (tmp_path / name).mkdir()
        sweep = sweep_of(tmp_path / name, failed, happened)
        assert sweep.results[Cell(model="minilm", task="mrpc", method="adapter")].progress == expected


@pytest.fixture(scope="module")
def extended(tmp_path_factory):
    """A search that went on after finals of another winner had been scored on the test split."""
    replaced = [final(ADAPTER, 100 + seed, 60.0, phase="replaced", params={"lr": 5e-4}) for seed in range(3)]
    trials = [FakeTrial(cell=ADAPTER, name=f"a{i}") for i in range(4)] + replaced
    trials += [final(ADAPTER, seed, 80.0 + seed) for seed in range(3)]
    return sweep_of(
        tmp_path_factory.mktemp("more"), trials, {keys.EXTENDED: "true", keys.CURTAILED: ""}, {ADAPTER: "a0"}
    )


def test_finals_of_an_earlier_winner_count_in_no_result_and_are_named(extended):
    result = extended.results[Cell(model="minilm", task="mrpc", method="adapter")]
    assert result.scores == (80.0, 81.0, 82.0)
    assert not result.mixed
    check_selection(extended.trials)
    assert "**3 finals of earlier winners count in no result:**" in budget.text(extended)
    spent = budget.rows(extended).set_index("method").loc["adapter"]
    assert (spent["finals"], spent["final_hours"]) == (3, pytest.approx(6 * 72 / 3600))


def test_a_search_that_went_on_after_the_test_split_was_scored_says_so_at_the_top(extended):
    assert "after a time budget had ended them and finals had been scored on the test split" in "".join(
        extended.manifest.reductions
    )
    assert "searches of all cells at one moment" not in budget.text(extended)
    assert all(section.text is None or section.text(extended) is not None for section in SECTIONS.values())
