"""Mailbox and controller without Ray: messages are taken together, decided on, made durable with one write, then answered."""

import asyncio
import threading
from contextlib import closing

import pytest

from orchestrator.execution.controller import Controller
from orchestrator.execution.trial_paths import TrialPaths
from orchestrator.ledger import Ledger
from search_spaces.language import Budget, method
from search_spaces.records import Trial
from tests.fixtures.fakes import curve, drive, make_space, open_sweep, report, result
from tests.fixtures.ledger_lines import read
from trainables.worker.mailbox import Mailbox


class DirectMailbox:
    """The driver's end of a mailbox that takes news from a function."""

    def __init__(self, exchange=None):
        self.exchange, self.released = exchange, []

    def release(self, trial_id):
        self.released.append(trial_id)


class EndedTrials:
    """Notes the trials that ended, with the last event in the ledger at that time."""

    def __init__(self, folder):
        self.folder, self.ended = folder, []

    def trial_ended(self, trial_id):
        self.ended.append((trial_id, read(self.folder)[-1]["event"]))


def controller_of(sweep, root, exchange=None):
    paths = TrialPaths(sources={"m": "m"}, data={("m", task, 0): root for task in ("t", "u")}, checkpoints=root)
    return Controller(sweep, DirectMailbox(exchange), paths, EndedTrials(root / "sweep"))


async def worker_slot(mailbox, name, trained, die_after=None):
    """Trains what the mailbox gives it, one trial after the other; after some epochs its process dies."""
    while (job := await mailbox.job(name)) is not None:
        trial = Trial.from_json(job["trial"])
        for progress in curve(trial):
            await asyncio.sleep(0)
            trained.append((trial.id, progress.epoch))
            if len(trained) == die_after:
                return
            if not (await mailbox.report([report(trial, progress)]))[trial.id]:
                break
        name += "'"


def run(space, root, num_slots=4, notify=lambda records: None, deaths=()):
    """A whole sweep over a mailbox: worker slots in an event loop, the controller in its own thread as in the driver."""
    sweep, trained = open_sweep(space, root, notify=notify), []

    async def scene():
        mailbox, loop = Mailbox(), asyncio.get_running_loop()

        def exchange(jobs, verdicts):
            return asyncio.run_coroutine_threadsafe(mailbox.take(jobs, verdicts, 0.05), loop).result()

        controller = controller_of(sweep, root, exchange)
        thread = threading.Thread(target=controller.run)
        thread.start()
        for death in deaths:
            await worker_slot(mailbox, "mortal", trained, die_after=death)
        slots = [worker_slot(mailbox, f"p{i}", trained) for i in range(num_slots)]
        await asyncio.gather(*slots, worker_slot(mailbox, "mortal", trained))
        controller.close()
        await asyncio.to_thread(thread.join)
        assert controller.error is None

    with closing(sweep._ledger):
        asyncio.run(scene())
    return sweep, trained


@pytest.mark.parametrize("num_slots", [1, 3, 16])
def test_a_sweep_over_the_mailbox_ends_as_one_that_is_driven_by_hand(num_slots, tmp_path):
    space = make_space()
    sweep, trained = run(space, tmp_path / "mailbox", num_slots)
    assert result(sweep) == result(drive(space, tmp_path / "hand"))
    assert len(trained) == len(set(trained))


def test_a_worker_slot_that_asks_again_after_its_process_died_goes_on_with_its_trial(tmp_path):
    space = make_space(tasks=("t",), budget=Budget(trials=4, final_seeds=1))
    sweep, _ = run(space, tmp_path / "mailbox", deaths=(2, 5))
    assert result(sweep) == result(drive(space, tmp_path / "hand"))
    records = read(tmp_path / "mailbox" / "sweep")
    started = [r["id"] for r in records if r["event"] == "started"]
    assert len(started) == len(set(started))


def test_a_worker_slot_that_comes_back_for_its_trial_does_not_queue_behind_those_that_wait(tmp_path):
    sweep = open_sweep(
        make_space(tasks=("t",), methods=(method("full"),), budget=Budget(trials=6, in_flight=1)), tmp_path
    )
    controller = controller_of(sweep, tmp_path)
    first, _ = controller.serve(["a", "b", "c"], [])
    assert list(first) == ["a"]
    again, _ = controller.serve(["a"], [])
    assert again == first


def test_what_came_in_together_is_written_at_once_and_before_it_is_answered(tmp_path, monkeypatch):
    sweep = open_sweep(make_space(), tmp_path)
    controller = controller_of(sweep, tmp_path)
    jobs, _ = controller.serve([f"p{i}" for i in range(6)], [])
    trials = [Trial.from_json(job["trial"]) for job in jobs.values()]
    writes = []
    real = Ledger._write
    monkeypatch.setattr(Ledger, "_write", lambda self, data: (writes.append(data), real(self, data)))
    _, verdicts = controller.serve([], [report(trial, curve(trial)[0]) for trial in trials])
    assert verdicts == dict.fromkeys((t.id for t in trials), True)
    assert len(writes) == 1
    on_record = [r["id"] for r in read(tmp_path / "sweep") if r["event"] == "progress"]
    assert on_record == [t.id for t in trials]


def test_a_ledger_that_cannot_be_written_stops_the_controller_before_it_answers(tmp_path, monkeypatch):
    sweep = open_sweep(make_space(), tmp_path)
    told = []

    def exchange(jobs, verdicts):
        told.append((jobs, verdicts))
        return ["p"], []

    controller = controller_of(sweep, tmp_path, exchange)
    monkeypatch.setattr("os.fsync", lambda file: (_ for _ in ()).throw(OSError("no space left")))
    controller.run()
    assert isinstance(controller.error, OSError)
    assert told == [({}, {})]


def test_a_drain_ends_what_reports_and_every_worker_slot(tmp_path):
    sweep = open_sweep(make_space(), tmp_path)
    controller = controller_of(sweep, tmp_path)
    jobs, _ = controller.serve(["a", "b"], [])
    trial = Trial.from_json(jobs["a"]["trial"])
    controller.drain("SIGTERM")
    jobs, verdicts = controller.serve(["c"], [report(trial, curve(trial)[0])])
    assert (jobs, verdicts) == ({"c": None}, {trial.id: False})
    assert sweep.entry(trial.id).outcome is None, "a drained trial is continued later"
    assert controller.grow_slots() == 0


def test_there_are_as_many_worker_slots_as_trials_that_can_run_and_never_fewer_later(tmp_path):
    space = make_space(tasks=("t",), budget=Budget(trials=6, final_seeds=1, in_flight=3))
    sweep = open_sweep(space, tmp_path)
    controller = controller_of(sweep, tmp_path)
    assert controller.grow_slots() == 6
    jobs, _ = controller.serve([f"p{i}" for i in range(8)], [])
    assert len(jobs) == 6
    last = Trial.from_json(jobs["p2"]["trial"])
    controller.fail(last.id, "boom")
    assert controller.grow_slots() == 6, "its cell waits for an earlier trial, but the worker slot is kept"


def unfit(trial_id):
    return {"id": trial_id, "environment_error": "node 10.0.0.3: No space left on device"}


def test_a_trial_that_its_machine_cannot_train_is_given_out_again_and_is_no_failure(tmp_path):
    sweep = open_sweep(make_space(), tmp_path)
    controller = controller_of(sweep, tmp_path)
    jobs, _ = controller.serve(["a"], [])
    trial_id = jobs["a"]["id"]
    again, verdicts = controller.serve(["b"], [unfit(trial_id)])
    assert verdicts == {trial_id: False}
    assert again["b"]["id"] == trial_id
    assert controller._mailbox.released == [trial_id]
    assert controller.close_slot("a") == "", "another slot has the trial now"
    assert not sweep.failures
    assert not controller.environment_error
    assert not [r for r in read(tmp_path / "sweep") if r["event"] == "ended"]


def test_machines_that_cannot_train_stop_the_sweep_and_its_trials_run_at_the_next_start(tmp_path):
    sweep = open_sweep(make_space(), tmp_path)
    controller = controller_of(sweep, tmp_path)
    jobs, _ = controller.serve(["a", "b"], [])
    first, other = jobs["a"]["id"], Trial.from_json(jobs["b"]["trial"])
    for slot in ("c", "d"):
        again, _ = controller.serve([slot], [unfit(first)])
        assert again[slot]["id"] == first
    last, verdicts = controller.serve(["e"], [unfit(first), report(other, curve(other)[0])])
    assert last == {"e": None}
    assert verdicts == {first: False, other.id: False}
    assert controller.environment_error == "node 10.0.0.3: No space left on device"
    assert controller.grow_slots() == 0
    sweep._ledger.close()
    assert result(drive(make_space(), tmp_path)) == result(drive(make_space(), tmp_path / "calm"))


def test_a_failed_trial_is_told_once_it_is_durable(tmp_path):
    sweep = open_sweep(make_space(), tmp_path)
    controller = controller_of(sweep, tmp_path)
    jobs, _ = controller.serve(["a"], [])
    assert controller.close_slot("a") == jobs["a"]["id"]
    assert controller.close_slot("a") == ""
    controller.fail(jobs["a"]["id"], "boom")
    assert controller._listener.ended == [(jobs["a"]["id"], "ended")]
    assert controller._mailbox.released == [jobs["a"]["id"]]
