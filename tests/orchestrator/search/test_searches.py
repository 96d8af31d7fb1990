"""Cells that are searched several times: seeds, splits, winners and finals of each search, kills, time budgets, names on disk."""

import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.fake_sweep import make
from orchestrator.execution.concurrency import most_search_trials, most_trials
from orchestrator.ledger import read_history
from orchestrator.planning.plan import Plan
from orchestrator.planning.sweep_manifest import folder_name, space_json
from orchestrator.reproduce import read_cell
from orchestrator.tracking.run_projection import RunProjection
from search_spaces import keys
from search_spaces.events import SweepOpened, TrialAsked, event_from_json, event_to_json
from search_spaces.language import Budget, Recipe, choice, log_uniform, method
from search_spaces.records import SEEDS_PER_SEARCH, Trial
from tests.fixtures.fakes import drive, drive_killed, make_space, open_sweep, result
from tests.orchestrator.search.test_time_budget import Scene


def searched(searches=2, **changes):
    return make_space(budget=Budget(**{"trials": 8, "final_seeds": 2, "searches": searches, "grace": 2, **changes}))


def test_every_search_has_its_own_seeds_split_winner_and_finals(tmp_path):
    sweep = drive(searched(3, search_seeds=2), tmp_path)
    assert len(sweep.searches) == 3 * len(sweep.space.cells)
    for (cell, number), search in sweep.searches.items():
        first = SEEDS_PER_SEARCH * number
        assert {(e.trial.cell, e.trial.search) for e in search.entries} == {(cell, number)}
        assert {e.trial.seed for e in search.search} == {first, first + 1}
        assert [e.trial.seed for e in search.finals] == [first + 2, first + 3]
        assert {e.trial.split for e in search.entries} == {f"s{number}" if number else "s"}
        assert {str(e.trial.hyperparameters) for e in search.finals} == {str(search.winner.trial.hyperparameters)}


def test_searches_do_not_repeat_each_other(tmp_path):
    sweep = drive(searched(2), tmp_path)
    tried = {
        (cell.method, number): [e.trial.hyperparameters for e in search.search]
        for (cell, number), search in sweep.searches.items()
    }
    assert tried["adapter", 0] != tried["adapter", 1]


def test_the_first_search_is_that_of_a_sweep_with_one(tmp_path):
    one, two = drive(searched(1), tmp_path / "one"), drive(searched(2), tmp_path / "two")
    first = {key: found for key, found in result(two).items() if key[1] == 0}
    assert first == result(one)


def test_more_searches_reuse_the_trials_of_fewer(tmp_path):
    drive(searched(1), tmp_path, name="one")
    sweep = drive(searched(2), tmp_path, name="two")
    for (_, number), search in sweep.searches.items():
        assert {e.cached for e in search.entries if e.outcome.state == "DONE"} == {number == 0}


def test_one_search_changes_no_name_and_no_id():
    space, one = make_space(), make_space(budget=Budget(trials=8, final_seeds=2, searches=1))
    assert "searches" not in space_json(space)["budget"]
    assert folder_name(one) == folder_name(space) != folder_name(searched(2))
    trial = make(space)(space.cells[0], {"lr": 1e-4, "batch_size": 8}, 0, "search", 0)
    assert "search" not in trial.to_json()
    assert Trial.from_json(trial.to_json()) == trial
    other = replace(trial, search=1)
    assert other.id != trial.id
    assert Trial.from_json(other.to_json()) == other


@settings(max_examples=25, deadline=None)
@given(
    searches=st.integers(2, 3),
    in_flight=st.integers(1, 4),
    workers=st.integers(1, 9),
    kills=st.lists(st.integers(1, 80), max_size=4),
)
def test_killed_at_any_point_a_sweep_has_the_same_searches(searches, in_flight, workers, kills):
    space = make_space(
        tasks=("t",),
        methods=(method("adapter", r=choice(8, 16, 32), lr=log_uniform(1e-5, 1e-2)),),
        budget=Budget(trials=5, searches=searches, final_seeds=2, in_flight=in_flight, grace=2),
    )
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        reference = drive(space, root / "calm")
        killed = drive_killed(space, root / "killed", kills, workers=workers)
        assert result(killed) == result(reference)


def test_searches_that_a_time_budget_ended_go_on_one_by_one(tmp_path):
    space = searched(2)
    ended = Scene("40s").run(space, tmp_path)
    assert ended.ended_early
    assert any(len(search.search) < search.planned for search in ended.searches.values())
    resumed = Scene(None).run(space, tmp_path)
    assert result(resumed) == result(drive(space, tmp_path / "calm"))
    won = {key: search.winner.trial.id for key, search in resumed.searches.items()}
    assert read_history(tmp_path / "sweep").winners == won


def test_the_ledger_says_which_searches_were_resumed_and_old_ones_mean_the_first():
    cell = make_space().cells[0]
    fields = {"model": cell.model, "task": cell.task, "method": cell.method}
    old = event_from_json({"event": "extended", "cells": [fields]})
    assert old.search_keys == ((cell, 0),)
    new = event_from_json({"event": "extended", "cells": [fields, fields], "searches": [0, 2]})
    assert new.search_keys == ((cell, 0), (cell, 2))
    assert event_from_json(event_to_json(new)) == new


def test_plan_and_machine_count_every_search():
    one, three = (Plan(space=searched(n), reductions=(), shapes={}, tasks={}) for n in (1, 3))
    assert three.trials == 3 * one.trials
    assert most_search_trials(three.space) == 3 * most_search_trials(one.space)
    assert most_trials(three.space) == 3 * most_trials(one.space)


def test_a_cell_is_repeated_with_the_finals_of_all_its_searches(tmp_path):
    space = searched(2)
    sweep = open_sweep(space, tmp_path)
    sweep._ledger.append(SweepOpened(manifest={"seed": 0, "budget": {"search_seeds": 1}}, format=1))
    sweep._ledger.close()
    drive(space, tmp_path)
    record = read_cell(tmp_path / "sweep", str(space.cells[0]))
    assert [(final.trial.search, final.trial.seed) for final in record.finals] == [(0, 1), (0, 2), (1, 1001), (1, 1002)]
    assert record.searches == [0, 1]


def test_in_mlflow_a_trial_has_the_number_of_its_search_and_a_cell_the_winner_of_each(tmp_path):
    records = []
    space = searched(2, trials=2)
    sweep = open_sweep(space, tmp_path, notify=records.extend)
    opened = sweep._ledger.append(SweepOpened(manifest={"sweep": "s"}, format=1))
    sweep._ledger.close()
    drive(space, tmp_path)
    projection = RunProjection()
    for record in [*opened, *(r for r in read_records(tmp_path / "sweep") if r.seq > opened[-1].seq)]:
        projection.apply(record)
    edits = projection.take()
    numbers = {e.run.key.trial: e.run.tags.get(keys.SEARCH) for e in edits if e.run.key.kind == "trial"}
    asked = [r.event.trial for r in read_records(tmp_path / "sweep") if isinstance(r.event, TrialAsked)]
    assert numbers == {trial.id: str(trial.search) if trial.search else None for trial in asked}
    won = read_history(tmp_path / "sweep").winners
    for edit in (e for e in edits if e.run.key.kind == "cell"):
        cell = next(cell for cell in space.cells if str(cell) == edit.run.key.cell)
        assert (edit.tags["peft.winner"], edit.tags["peft.winner.1"]) == (won[cell, 0], won[cell, 1])


def read_records(folder):
    from orchestrator.ledger import read

    return read(folder)


@pytest.mark.parametrize("searches", [0, 101])
def test_a_number_of_searches_out_of_range_is_refused(searches):
    with pytest.raises(ValueError, match="searches"):
        make_space(budget=Budget(searches=searches), recipe=Recipe())
