"""Desk and clerk without Ray: what is taken together, decided, made durable with one write, and only then answered."""

import asyncio
import threading
from contextlib import closing

import pytest

from orchestrator.execution.controller import Controller
from orchestrator.ledger import Ledger, read
from search_spaces.language import Budget, method
from search_spaces.records import Trial
from tests.fixtures.fakes import curve, drive, make_space, open_sweep, report, result
from trainables.worker.mailbox import Mailbox


def clerk_of(sweep, take=None, ended=lambda trial_id: None):
    return Controller(sweep, take, lambda trial: {"id": trial.id, "trial": trial.to_json()}, ended)


async def place(desk, name, trained, die_after=None):
    """Trains what the desk gives it, one trial after the other; after some epochs its process dies."""
    while (job := await desk.job(name)) is not None:
        trial = Trial.from_json(job["trial"])
        for progress in curve(trial):
            await asyncio.sleep(0)
            trained.append((trial.id, progress.epoch))
            if len(trained) == die_after:
                return
            if not (await desk.report([report(trial, progress)]))[trial.id]:
                break
        name += "'"


def run(space, root, places=4, notify=lambda records: None, deaths=()):
    """A whole sweep over a desk: places in an event loop, the clerk in its own thread as in the driver."""
    sweep, trained = open_sweep(space, root, notify=notify), []

    async def scene():
        desk, loop = Mailbox(), asyncio.get_running_loop()

        def take(jobs, verdicts):
            return asyncio.run_coroutine_threadsafe(desk.take(jobs, verdicts, 0.05), loop).result()

        clerk = clerk_of(sweep, take)
        thread = threading.Thread(target=clerk.run)
        thread.start()
        for death in deaths:
            await place(desk, "mortal", trained, die_after=death)
        await asyncio.gather(*(place(desk, f"p{i}", trained) for i in range(places)), place(desk, "mortal", trained))
        clerk.close()
        await asyncio.to_thread(thread.join)
        assert clerk.error is None

    with closing(sweep._ledger):
        asyncio.run(scene())
    return sweep, trained


@pytest.mark.parametrize("places", [1, 3, 16])
def test_a_sweep_over_the_desk_ends_as_one_that_is_driven_by_hand(places, tmp_path):
    space = make_space()
    sweep, trained = run(space, tmp_path / "desk", places)
    assert result(sweep) == result(drive(space, tmp_path / "hand"))
    assert len(trained) == len(set(trained))


def test_a_place_that_asks_again_after_its_process_died_goes_on_with_its_trial(tmp_path):
    space = make_space(tasks=("t",), budget=Budget(trials=4, final_seeds=1))
    sweep, _ = run(space, tmp_path / "desk", deaths=(2, 5))
    assert result(sweep) == result(drive(space, tmp_path / "hand"))
    records = read(tmp_path / "desk" / "sweep")
    started = [r["id"] for r in records if r["event"] == "started"]
    assert len(started) == len(set(started))


def test_a_place_that_comes_back_for_its_trial_does_not_queue_behind_those_that_wait(tmp_path):
    sweep = open_sweep(
        make_space(tasks=("t",), methods=(method("full"),), budget=Budget(trials=6, in_flight=1)), tmp_path
    )
    clerk = clerk_of(sweep)
    first, _ = clerk.serve(["a", "b", "c"], [])
    assert list(first) == ["a"]
    again, _ = clerk.serve(["a"], [])
    assert again == first


def test_what_came_in_together_is_written_at_once_and_before_it_is_answered(tmp_path, monkeypatch):
    sweep = open_sweep(make_space(), tmp_path)
    clerk = clerk_of(sweep)
    jobs, _ = clerk.serve([f"p{i}" for i in range(6)], [])
    trials = [Trial.from_json(job["trial"]) for job in jobs.values()]
    writes = []
    real = Ledger._write
    monkeypatch.setattr(Ledger, "_write", lambda self, data: (writes.append(data), real(self, data)))
    _, verdicts = clerk.serve([], [report(trial, curve(trial)[0]) for trial in trials])
    assert verdicts == dict.fromkeys((t.id for t in trials), True)
    assert len(writes) == 1
    on_record = [r["id"] for r in read(tmp_path / "sweep") if r["event"] == "progress"]
    assert on_record == [t.id for t in trials]


def test_a_ledger_that_cannot_be_written_stops_the_clerk_before_anybody_is_told(tmp_path, monkeypatch):
    sweep = open_sweep(make_space(), tmp_path)
    told = []

    def take(jobs, verdicts):
        told.append((jobs, verdicts))
        return ["p"], []

    clerk = clerk_of(sweep, take)
    monkeypatch.setattr("os.fsync", lambda file: (_ for _ in ()).throw(OSError("no space left")))
    clerk.run()
    assert isinstance(clerk.error, OSError)
    assert told == [({}, {})]


def test_a_drain_ends_what_reports_and_sends_every_place_home(tmp_path):
    sweep = open_sweep(make_space(), tmp_path)
    clerk = clerk_of(sweep)
    jobs, _ = clerk.serve(["a", "b"], [])
    trial = Trial.from_json(jobs["a"]["trial"])
    clerk.drain("SIGTERM")
    jobs, verdicts = clerk.serve(["c"], [report(trial, curve(trial)[0])])
    assert (jobs, verdicts) == ({"c": None}, {trial.id: False})
    assert sweep.entry(trial.id).outcome is None, "a drained trial is continued later"
    assert clerk.wanted() == 0


def test_places_wanted_are_what_can_run_and_never_fewer_later(tmp_path):
    space = make_space(tasks=("t",), budget=Budget(trials=6, final_seeds=1, in_flight=3))
    sweep = open_sweep(space, tmp_path)
    clerk = clerk_of(sweep)
    assert clerk.wanted() == 6
    jobs, _ = clerk.serve([f"p{i}" for i in range(8)], [])
    assert len(jobs) == 6
    last = Trial.from_json(jobs["p2"]["trial"])
    clerk.fail(last.id, "boom")
    assert clerk.wanted() == 6, "its cell waits for an earlier trial, but the place is kept"


def test_a_failed_trial_is_told_once_it_is_durable(tmp_path):
    sweep = open_sweep(make_space(), tmp_path)
    ended = []
    clerk = clerk_of(sweep, ended=lambda trial_id: ended.append((trial_id, read(tmp_path / "sweep")[-1]["event"])))
    jobs, _ = clerk.serve(["a"], [])
    assert clerk.vacate("a") == jobs["a"]["id"]
    assert clerk.vacate("a") == ""
    clerk.fail(jobs["a"]["id"], "boom")
    assert ended == [(jobs["a"]["id"], "ended")]
