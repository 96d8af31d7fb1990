"""A time budget: the searches end in time for the finals, what was decided stays decided, and a larger one goes on."""

from dataclasses import dataclass, replace

import pytest

from orchestrator.ledger import read as read_records
from orchestrator.search.durations import Durations, seconds
from orchestrator.search.time_budget import TimeBudget, greedy, reserve
from orchestrator.tracking.run_edits import Key
from orchestrator.tracking.run_projection import RunProjection
from search_spaces import keys
from search_spaces.events import (
    EpochReported,
    LedgerRecord,
    SearchesEndedEarly,
    SearchesResumed,
    SweepInterrupted,
    SweepOpened,
)
from search_spaces.history import SweepHistory
from search_spaces.language import Budget, Recipe, method
from search_spaces.records import BUDGET
from tests.fixtures.fakes import Died, curve, drive, end_of, make_space, open_sweep, result
from tests.fixtures.ledger_lines import read


@dataclass
class Scene:
    """Workers that train an epoch of every trial in a second, on a clock that runs with what they report."""

    budget: str | None
    workers: int = 3
    now: float = 0.0

    def run(self, space, root, **more):
        return drive(space, root, workers=self.workers, begin=self._begin, look=self._look, **more)

    def _begin(self, sweep):
        self.sweep, history = sweep, sweep._ledger.history
        self.time_budget = TimeBudget(self.budget, history, lambda: self.now) if self.budget else None
        if sweep.ended_early and (not self.time_budget or self.time_budget.allows_more_than(sweep.ended_early)):
            sweep.resume_searches()
        self._seen = len(sweep._ledger.records)

    def _look(self):
        records = self.sweep._ledger.records[self._seen :]
        self._seen += len(records)
        self.now += sum(isinstance(r.event, EpochReported) for r in records) / self.workers
        if self.time_budget:
            self.time_budget.end_searches_when_due(self.sweep, self.workers)


def calm(root):
    scene = Scene(None)
    return scene.run(make_space(), root / "calm"), scene.now


@pytest.mark.parametrize("budget", [30, 40, 60])
@pytest.mark.parametrize("workers", [1, 3, 8])
def test_the_searches_end_in_time_for_the_finals(budget, workers, tmp_path):
    space, scene = make_space(), Scene(f"{budget * 3 / workers}s", workers)
    sweep = scene.run(space, tmp_path)
    assert sweep.finished
    for search in sweep.searches.values():
        assert [e.outcome.state for e in search.finals] == ["DONE"] * 2
        assert search.search
        assert search.winner
    assert sweep.ended_early.budget == scene.budget
    # An epoch is what a trial takes to hear that it is over.
    assert scene.now <= scene.time_budget.seconds + 1
    tried = [len(search.search) for search in sweep.searches.values()]
    assert sum(tried) < 28
    assert max(tried) - min(tried) <= space.budget.in_flight, "cells are cut where they stand, and they stand even"


def test_most_of_the_time_is_used(tmp_path):
    scene = Scene("40s")
    scene.run(make_space(), tmp_path)
    assert scene.now > 30


def test_what_ran_when_the_searches_ended_is_stopped_for_that_reason_and_can_win(tmp_path):
    sweep = Scene("30s").run(make_space(), tmp_path)
    entries = [e for search in sweep.searches.values() for e in search.search]
    stopped = [e for e in entries if e.outcome.reason == BUDGET]
    assert stopped
    assert {e.outcome.state for e in stopped} == {"STOPPED"}
    for entry in stopped:
        assert len(entry.curve) < 8
        assert entry.outcome.best_score == entry.curve.last.best_score
    for search in sweep.searches.values():
        able = [e for e in search.search if e.outcome.state == "DONE" or e.outcome.reason == BUDGET]
        assert search.winner.outcome.best_score == max(e.outcome.best_score for e in able)


def test_however_little_time_there_is_each_cell_has_one_configuration_and_its_finals(tmp_path):
    scene = Scene("1s", workers=1)
    sweep = scene.run(make_space(), tmp_path)
    for search in sweep.searches.values():
        assert 1 <= len(search.search) <= 2
        assert len(search.finals) == 2
    assert sweep.finished


def test_a_configuration_that_fails_is_replaced_by_another_so_that_each_cell_has_one(tmp_path):
    failed = []

    def fails(trial):
        if trial.cell.method == "full" and trial.phase == "search" and (len(failed) < 2 or trial.id in failed):
            failed.append(trial.id)
            return True
        return False

    sweep = Scene("1s", workers=1).run(make_space(tasks=("t",)), tmp_path, fails=fails)
    for search in sweep.searches.values():
        assert search.winner, [e.outcome for e in search.search]
        assert len(search.finals) == 2


def test_with_time_enough_nothing_is_cut_and_nothing_is_said(tmp_path):
    sweep = Scene("10m").run(make_space(), tmp_path)
    assert result(sweep) == result(calm(tmp_path)[0])
    assert not sweep.ended_early
    assert {"curtailed", "extended"}.isdisjoint(r["event"] for r in read(tmp_path / "sweep"))


@pytest.mark.parametrize("dies_at", [3, 6, 40, 70])
def test_a_killed_driver_continues_to_the_end_that_the_budget_had_set(dies_at, tmp_path):
    space, scene, trained = make_space(), Scene("30s"), []
    with pytest.raises(Died):
        scene.run(space, tmp_path, dies_at=dies_at, trained=trained)
    cut = scene.sweep.ended_early
    asked = {e.trial.id for s in scene.sweep.searches.values() for e in s.search}
    without = sum(not s.search for s in scene.sweep.searches.values())
    again = Scene("30s", now=scene.now).run(space, tmp_path, seed=7, trained=trained)
    assert again.finished
    assert len(trained) == len(set(trained))
    if cut:
        assert again.ended_early.spent == cut.spent
        new = {e.trial.id for s in again.searches.values() for e in s.search} - asked
        assert len(new) == without, "only a cell that had nothing to choose from asks for more"


def test_the_same_command_has_nothing_left_to_do(tmp_path):
    first, trained = Scene("40s"), []
    sweep = first.run(make_space(), tmp_path)
    again = Scene("40s", now=first.now).run(make_space(), tmp_path, trained=trained)
    assert trained == []
    assert result(again) == result(sweep)


@pytest.mark.parametrize("budgets", [("30s",), ("30s", "45s"), ("1s", "2s", "30s", "31s")])
@pytest.mark.parametrize("kill", [None, 40])
def test_a_search_that_is_taken_up_again_ends_as_one_that_was_never_ended(budgets, kill, tmp_path):
    space, now = make_space(), 0.0
    for budget in budgets:
        scene = Scene(budget, now=now)
        assert scene.run(space, tmp_path).ended_early
        now = scene.now
    if kill:
        with pytest.raises(Died):
            Scene(None).run(space, tmp_path, dies_at=kill)
    sweep = Scene(None).run(space, tmp_path, seed=3)
    assert not sweep.ended_early
    assert result(sweep) == result(calm(tmp_path)[0])


def test_searches_are_resumed_where_the_budget_cut_nothing_off(tmp_path):
    """The second budget ends the searches when only last epochs are missing, so that no search has anything left to resume."""
    space = make_space(tasks=("t", "u", "v"), methods=make_space().methods[1:])
    for budget in ("40s", "45s", None):
        resumed = Scene(budget).run(space, tmp_path)
    assert SearchesResumed(cells=()) in [record.event for record in read_records(tmp_path / "sweep")]
    again = Scene(None).run(space, tmp_path)
    assert result(again) == result(resumed) == result(drive(space, tmp_path / "calm"))


def run_to_another_winner(tmp_path):
    """A sweep that a budget ended, and then went on; the cells whose winner has changed with that."""
    first = Scene("70s").run(make_space(), tmp_path)
    before = {cell: search.winner.trial for (cell, _), search in first.searches.items()}
    finals = {cell: [e.trial.id for e in search.finals] for (cell, _), search in first.searches.items()}
    trained = []
    second = Scene(None).run(make_space(), tmp_path, trained=trained)
    changed = {cell for (cell, _), search in second.searches.items() if search.winner.trial != before[cell]}
    assert 0 < len(changed) < len(before), "the curves of this space show both"
    return second, finals, changed, trained


def test_finals_of_a_winner_that_stays_are_kept_and_those_of_another_do_not_count(tmp_path):
    sweep, finals, changed, trained = run_to_another_winner(tmp_path)
    for (cell, _), search in sweep.searches.items():
        ids = [e.trial.id for e in search.finals]
        assert [e.trial.seed for e in search.finals] == [1, 2]
        assert {e.trial.lr for e in search.finals} == {search.winner.trial.lr}
        if cell in changed:
            assert set(ids).isdisjoint(finals[cell])
            assert sweep.best_final(cell) in search.finals
        else:
            assert ids == finals[cell]
            assert set(ids).isdisjoint(trial_id for trial_id, _ in trained)


def test_the_store_tells_finals_that_count_from_those_that_were_replaced(tmp_path):
    sweep, finals, changed, _ = run_to_another_winner(tmp_path)
    manifest = {"sweep": "s", "space": "fake", "models": {}, "tasks": {}, "methods": {}}
    runs, tags = RunProjection(), {}
    opening = LedgerRecord(seq=0, time=0.0, event=SweepOpened(manifest=manifest))
    for record in [opening, *read_records(tmp_path / "sweep")]:
        runs.apply(record)
        for edit in runs.take():
            tags.setdefault(edit.run.key, dict(edit.run.tags)).update(edit.tags)
    assert tags[Key("sweep")][keys.CURTAILED] == ""
    assert tags[Key("sweep")][keys.EXTENDED] == "true"
    for (cell, _), search in sweep.searches.items():
        assert tags[Key("cell", str(cell))][keys.WINNER] == search.winner.trial.id
        assert {tags[Key("trial", str(cell), e.trial.id)][keys.PHASE] for e in search.finals} == {"final"}
        for trial_id in finals[cell] if cell in changed else []:
            assert tags[Key("trial", str(cell), trial_id)][keys.PHASE] == "replaced"


def test_a_running_final_of_a_winner_that_is_none_any_more_is_not_trained_to_its_end(tmp_path):
    space = make_space(tasks=("t",), methods=(method("full"),), budget=Budget(trials=6, final_seeds=3))
    sweep = open_sweep(space, tmp_path)
    trial = sweep.next_trial()
    points = curve(trial)
    for progress in points:
        sweep.record(trial.id, progress, *(end_of(trial, progress) if progress is points[-1] else (None, None)))
    sweep.end_searches_early(SearchesEndedEarly(budget="1s", allowed=1.0, spent=1.0, needed=0.0))
    (search,) = sweep.searches.values()
    assert search.winner.trial == trial
    final = sweep.next_trial()
    assert final.phase == "final"
    sweep.resume_searches()
    assert search.winner is None
    assert sweep.next_trial().phase == "search"
    assert final.id not in {e.trial.id for e in search.entries}
    sweep._ledger.close()
    again = open_sweep(space, tmp_path)
    assert {e.trial.phase for s in again.searches.values() for e in s.entries} == {"search"}


def test_what_is_kept_for_the_finals_is_what_they_took_elsewhere(tmp_path):
    space = make_space(tasks=("t",), recipe=Recipe(epochs=8, patience=8))
    sweep = open_sweep(space, tmp_path)
    durations = Durations(sweep._ledger.history)
    assert reserve(sweep, durations, 2) == 0
    first, second = sweep.next_trial(), sweep.next_trial()
    assert first.cell != second.cell
    points = [replace(p, seconds=5.0) for p in curve(first)]
    for progress in points:
        sweep.record(first.id, progress, *(end_of(first, progress) if progress is points[-1] else (None, None)))
    # Each of two cells: two finals of 40 s, and an epoch of 5 s; the second cell has not even reported yet.
    assert reserve(sweep, durations, 1) == 2 * (80 + 5) + 5
    assert reserve(sweep, durations, 2) == (80 + 5) + 5
    assert reserve(sweep, durations, 4) == (40 + 5) + 5
    sweep.record(second.id, replace(curve(second)[0], seconds=1.0))
    assert reserve(sweep, durations, 1) == 80 + 5 + 2 * 8 * 1 + 1 + 5


def test_jobs_are_shared_out_shortest_first():
    assert greedy([9.0, 1.0, 2.0], 2) == 1 + 9
    assert greedy([3.0, 3.0], 5) == 3
    assert greedy([], 2) == 0


@pytest.mark.parametrize(
    ("text", "expected"), [("90m", 5400), ("40h", 144_000), ("3600s", 3600), ("2d", 172_800), ("1.5h", 5400)]
)
def test_a_time_is_a_number_with_its_unit(text, expected):
    assert seconds(text) == expected


@pytest.mark.parametrize(
    "text", ["", "40", "3 bananas", "0h", "-2h", "h", "1h30m", "inf", "nanh", "１h", "1e3s", " 2h"]
)
def test_anything_else_is_no_time(text):
    with pytest.raises(ValueError, match="above zero with its unit"):
        seconds(text)


def test_time_between_two_drivers_is_not_spent():
    opened, other = SweepOpened(manifest={}), SweepInterrupted(reason="")
    times = [(opened, 100.0), (other, 101.0), (other, 130.0), (opened, 5000.0), (other, 5010.0)]
    records = [LedgerRecord(seq=i, time=time, event=event) for i, (event, time) in enumerate(times, 1)]
    assert SweepHistory(records).seconds_spent == 30 + 10
    assert SweepHistory().seconds_spent == 0
