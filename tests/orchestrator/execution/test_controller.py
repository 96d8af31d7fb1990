"""Mailbox and controller without Ray: messages are taken together, decided on, made durable with one write, then answered."""

import asyncio

import pytest

from orchestrator.execution.controller import RETRIES, TRIES
from orchestrator.execution.watchdog import SILENT_SECONDS, Watchdog
from orchestrator.execution.worker_pool import DEATHS
from orchestrator.ledger import Ledger
from search_spaces.language import Budget
from tests.fixtures.controllers import (
    call,
    controller_of,
    epoch,
    run,
    told,
    trials_of,
)
from tests.fixtures.fakes import curve, drive, make_space, open_sweep, result
from tests.fixtures.ledger_lines import read
from trainables.worker.mailbox import NEEDS_SECONDS, Mailbox, Needs


@pytest.mark.parametrize(("devices", "per_device"), [(1, 1), (1, 3), (3, 1), (4, 4)])
def test_a_sweep_over_the_mailbox_ends_as_one_that_is_driven_by_hand(devices, per_device, tmp_path):
    space = make_space()
    sweep, trained = run(space, tmp_path / "mailbox", devices, per_device)
    assert result(sweep) == result(drive(space, tmp_path / "hand"))
    assert len(trained) == len(set(trained)), "an epoch was trained twice"


def test_workers_whose_processes_die_cost_no_trial(tmp_path):
    space = make_space()
    sweep, _ = run(space, tmp_path / "mailbox", deaths=(2, 5))
    assert result(sweep) == result(drive(space, tmp_path / "hand"))
    records = read(tmp_path / "mailbox" / "sweep")
    ended = [r["id"] for r in records if r["event"] == "ended"]
    assert len(ended) == len(set(ended))


def test_what_a_driver_needs_counts_for_a_minute(monkeypatch):
    now = [5.0]
    monkeypatch.setattr("trainables.worker.mailbox.time.monotonic", lambda: now[0])
    mailbox, needs = Mailbox(), Needs("GPU", 8, 2)
    assert asyncio.run(mailbox.needs()) is None
    asyncio.run(mailbox.note_needs(needs))
    now[0] += NEEDS_SECONDS
    assert asyncio.run(mailbox.needs()) == needs
    now[0] += 1
    assert asyncio.run(mailbox.needs()) is None, "it may have stopped"


@pytest.mark.parametrize("limits", [(1, None), (1, 2, 1, 2, 1), (2, None, 1)])
def test_workers_that_leave_for_other_sweeps_change_no_result(limits, tmp_path):
    space = make_space()
    sweep, _ = run(space, tmp_path / "mailbox", 3, 2, limits=limits)
    assert result(sweep) == result(drive(space, tmp_path / "hand"))


def test_a_trial_whose_worker_is_to_leave_goes_on_elsewhere_once_that_one_has_ended(tmp_path):
    sweep = open_sweep(make_space(), tmp_path)
    controller = controller_of(sweep, tmp_path, devices=2, per_device=1)
    orders, _ = controller.serve([call("w0"), call("w1")], [])
    (trial,) = trials_of(orders, "w1")
    controller.serve([call("w0"), call("w1")], [])
    controller.limit_workers(1)
    assert (controller.limit, controller.num_workers) == (1, 1)
    first, second, *_ = curve(trial)
    assert controller._pool.is_leaving(trial.id) != controller._pool.is_leaving(trials_of(orders, "w0")[0].id)
    leaving = "w1" if controller._pool.is_leaving(trial.id) else "w0"
    (trial,) = trials_of(orders, leaving)
    orders, verdicts = controller.serve([], [epoch(call(leaving), trial, first)])
    assert verdicts == {(f"{leaving}-p", trial.id): False}
    assert orders == {leaving: {"jobs": [], "close": True}}, "the other one has no room, and this one may still write"
    controller.worker_ended(leaving)
    controller.limit_workers(None)
    orders, _ = controller.serve([call("w2")], [])
    assert [each.id for each in trials_of(orders, "w2")] == [trial.id]
    _, verdicts = controller.serve([], [epoch(call("w2"), trial, first), epoch(call("w2"), trial, second)])
    assert set(verdicts.values()) == {True}
    assert not controller._errors
    assert not controller._pool._deaths, "it is no fault of the trial"


def test_a_leaving_worker_that_dies_gives_its_trials_back_at_once(tmp_path):
    sweep = open_sweep(make_space(), tmp_path)
    controller = controller_of(sweep, tmp_path, devices=2, per_device=1)
    orders, _ = controller.serve([call("w0")], [])
    (trial,) = trials_of(orders, "w0")
    controller.limit_workers(0)
    controller.serve([call("w0")], [epoch(call("w0"), trial, next(iter(curve(trial))))])
    assert controller.worker_died("w0", "killed", False)
    controller.limit_workers(None)
    orders, _ = controller.serve([call("w1")], [])
    assert [each.id for each in trials_of(orders, "w1")] == [trial.id]


def test_what_came_in_together_is_written_at_once_and_before_it_is_answered(tmp_path, monkeypatch):
    sweep = open_sweep(make_space(), tmp_path)
    controller = controller_of(sweep, tmp_path)
    orders, _ = controller.serve([call("w")], [])
    trials = trials_of(orders, "w")
    assert len(trials) == 6
    writes = []
    real = Ledger._write
    monkeypatch.setattr(Ledger, "_write", lambda self, data: (writes.append(data), real(self, data)))
    _, verdicts = controller.serve([], [epoch(call("w"), trial, curve(trial)[0]) for trial in trials])
    assert verdicts == {("w-p", trial.id): True for trial in trials}
    assert len(writes) == 1
    on_record = [r["id"] for r in read(tmp_path / "sweep") if r["event"] == "progress"]
    assert on_record == [t.id for t in trials]


def test_a_ledger_that_cannot_be_written_stops_the_controller_before_it_answers(tmp_path, monkeypatch):
    sweep = open_sweep(make_space(), tmp_path)
    answers = []

    def exchange(orders, verdicts):
        answers.append((orders, verdicts))
        return [call("w")], []

    controller = controller_of(sweep, tmp_path, exchange)
    monkeypatch.setattr("os.fsync", lambda file: (_ for _ in ()).throw(OSError("no space left")))
    controller.run()
    assert isinstance(controller.error, OSError)
    assert answers == [({}, {})]


def test_a_drain_ends_what_reports_and_every_worker_without_a_trial(tmp_path):
    sweep = open_sweep(make_space(), tmp_path)
    controller = controller_of(sweep, tmp_path, devices=2, per_device=1)
    orders, _ = controller.serve([call("a"), call("b")], [])
    (trial,) = trials_of(orders, "a")
    controller.drain("SIGTERM")
    orders, verdicts = controller.serve([call("a"), call("c")], [])
    assert orders == {"c": {"jobs": [], "close": True}}
    orders, verdicts = controller.serve([], [epoch(call("a"), trial, curve(trial)[0])])
    assert verdicts == {("a-p", trial.id): False}
    assert orders == {"a": {"jobs": [], "close": True}}
    assert sweep.entry(trial.id).outcome is None, "a drained trial is continued later"
    assert controller.grow_workers() == 0


def test_as_many_devices_are_wanted_as_trials_can_run_and_never_fewer_later(tmp_path):
    space = make_space(tasks=("t",), budget=Budget(trials=6, final_seeds=1, in_flight=3))
    sweep = open_sweep(space, tmp_path)
    controller = controller_of(sweep, tmp_path, devices=8, per_device=1)
    assert controller.grow_workers() == 6
    orders, _ = controller.serve([call(f"w{i}") for i in range(8)], [])
    assert [len(each["jobs"]) for each in orders.values()] == [1] * 6
    for _ in range(RETRIES + 1):
        worker, trial = next((name, trials_of(orders, name)[0]) for name in orders if trials_of(orders, name))
        orders, _ = controller.serve([call(worker)], [told(call(worker), trial.id, error="RuntimeError: boom")])
    assert controller.grow_workers() == 6, "its cell waits for an earlier trial, but the worker is kept"


def test_the_first_device_leaves_the_others_their_part(tmp_path):
    sweep = open_sweep(make_space(budget=Budget(trials=8, final_seeds=2, in_flight=2)), tmp_path)
    controller = controller_of(sweep, tmp_path, devices=4, per_device=16)
    assert sweep.startable == 8
    first, _ = controller.serve([call("w0")], [])
    rest, _ = controller.serve([call("w1"), call("w2"), call("w3")], [])
    assert [len(each["jobs"]) for each in (first | rest).values()] == [2, 2, 2, 2]
    assert {trial.cell for name in first | rest for trial in trials_of(first | rest, name)} == set(sweep.space.cells)


def unfit(sender, trial_id):
    return told(sender, trial_id, environment_error="node n: No space left on device")


def test_a_trial_that_its_machine_cannot_train_is_given_out_again_and_is_no_failure(tmp_path):
    sweep = open_sweep(make_space(), tmp_path)
    controller = controller_of(sweep, tmp_path, devices=2, per_device=1)
    orders, _ = controller.serve([call("a"), call("b", node="other")], [])
    (trial,) = trials_of(orders, "a")
    (second,) = trials_of(orders, "b")
    ended = epoch(call("b"), second, curve(second)[0])
    orders, verdicts = controller.serve([call("a"), call("b", node="other")], [unfit(call("a"), trial.id), ended])
    assert verdicts == {("a-p", trial.id): False, ("b-p", second.id): True}
    assert orders == {}, "its node is set aside, and the other one is full"
    orders, _ = controller.serve([], [told(call("b"), second.id, crowded=True)])
    assert trials_of(orders, "b")[0].id in (trial.id, second.id)
    assert not sweep.failures
    assert not controller.environment_error
    assert not [r for r in read(tmp_path / "sweep") if r["event"] == "ended"]


def test_a_checkpoint_that_was_not_kept_is_told_once_until_one_is_kept_again(tmp_path, caplog):
    sweep = open_sweep(make_space(), tmp_path)
    controller = controller_of(sweep, tmp_path, per_device=1)
    orders, _ = controller.serve([call("a")], [])
    (trial,) = trials_of(orders, "a")
    points = curve(trial)
    for point, warning in zip(
        points, ({"warning": "no room"}, {"warning": "no room"}, {}, {"warning": "no way"}), strict=False
    ):
        controller.serve([], [{**epoch(call("a"), trial, point), **warning}])
    assert [caplog.text.count(reason) for reason in ("on node n: no room", "on node n: no way")] == [1, len(points) > 3]
    assert not sweep.failures


def test_machines_that_cannot_train_stop_the_sweep_and_its_trials_run_at_the_next_start(tmp_path):
    sweep = open_sweep(make_space(), tmp_path)
    controller = controller_of(sweep, tmp_path, per_device=1)
    for _ in range(TRIES):
        orders, _ = controller.serve([call("a")], [])
        (trial,) = trials_of(orders, "a")
        orders, verdicts = controller.serve([], [unfit(call("a"), trial.id)])
        assert verdicts == {("a-p", trial.id): False}
    assert controller.environment_error == "node n: No space left on device"
    assert controller.serve([call("a")], [])[0] == {"a": {"jobs": [], "close": True}}
    assert controller.grow_workers() == 0
    sweep._ledger.close()
    assert result(drive(make_space(), tmp_path)) == result(drive(make_space(), tmp_path / "calm"))


@pytest.mark.parametrize("second_is_fit", [True, False])
def test_the_first_machine_to_start_does_not_stop_the_sweep_before_the_others_are_there(second_is_fit, tmp_path):
    sweep = open_sweep(make_space(), tmp_path)
    controller = controller_of(sweep, tmp_path, devices=2, per_device=1)
    for _ in range(TRIES):
        orders, _ = controller.serve([call("a")], [])
        (trial,) = trials_of(orders, "a")
        controller.serve([], [unfit(call("a"), trial.id)])
    assert controller.serve([call("a")], [])[0] == {}, "it is set aside"
    assert not controller.environment_error
    orders, _ = controller.serve([call("b", node="other", **({} if second_is_fit else {"unfit": "no model"}))], [])
    assert bool(trials_of(orders, "b")) == second_is_fit
    assert bool(controller.environment_error) != second_is_fit
    if second_is_fit:
        controller.serve([], [unfit(call("b", node="other"), trials_of(orders, "b")[0].id)])
        assert not controller.environment_error, "errors of the first machine do not count for it"


def test_a_machine_that_is_unfit_from_the_start_gets_nothing_and_alone_it_stops_the_sweep(tmp_path, caplog):
    sweep = open_sweep(make_space(), tmp_path)
    controller = controller_of(sweep, tmp_path, devices=2)
    assert controller.serve([call("a", node="10.0.0.4", unfit="other code")], [])[0] == {}
    assert "node 10.0.0.4 is set aside: other code" in caplog.text
    orders, _ = controller.serve([call("b")], [])
    assert trials_of(orders, "b")
    alone = open_sweep(make_space(), tmp_path, "alone")
    controller = controller_of(alone, tmp_path)
    orders, _ = controller.serve([call("a", unfit="other code")], [])
    assert orders == {"a": {"jobs": [], "close": True}}
    assert controller.environment_error == "other code"


def test_a_trial_that_raises_is_trained_again_and_then_fails_and_this_is_told_once_it_is_durable(tmp_path):
    sweep = open_sweep(make_space(), tmp_path)
    controller = controller_of(sweep, tmp_path, per_device=1)
    orders, _ = controller.serve([call("a")], [])
    (trial,) = trials_of(orders, "a")
    for _ in range(RETRIES):
        orders, _ = controller.serve([call("a")], [told(call("a"), trial.id, error="RuntimeError: boom")])
        assert trials_of(orders, "a") == [trial]
    controller.serve([call("a")], [told(call("a"), trial.id, error="RuntimeError: boom")])
    assert [(e.trial.id, e.outcome.reason) for e in sweep.failures] == [(trial.id, "RuntimeError: boom")]
    assert controller._listener.ended == [(trial.id, "started")], "written with the start of the next trial"


def test_a_trial_whose_workers_die_fails_at_last_and_one_of_a_lost_node_does_not(tmp_path):
    sweep = open_sweep(make_space(), tmp_path)
    controller = controller_of(sweep, tmp_path, per_device=1)
    lost = [True] * (DEATHS + 1) + [False] * DEATHS
    for number, node_died in enumerate(lost):
        orders, _ = controller.serve([call("a", str(number))], [])
        (trial,) = trials_of(orders, "a")
        assert not sweep.failures
        assert controller.worker_died("a", "the process ended", node_died)
    assert [e.trial.id for e in sweep.failures] == [trial.id]
    assert sweep.failures[0].outcome.reason.startswith(f"its worker died {DEATHS} times")
    assert sweep.failures[0].outcome.reason.endswith("(the process ended)")
    assert not controller.worker_died("a", "could not be started", False)


def test_a_process_that_was_replaced_has_no_say(tmp_path):
    """A node that was cut off and comes back: its trial is with another process now."""
    sweep = open_sweep(make_space(), tmp_path)
    controller = controller_of(sweep, tmp_path, per_device=1)
    orders, _ = controller.serve([call("a", "old")], [])
    (trial,) = trials_of(orders, "a")
    orders, _ = controller.serve([call("a", "new")], [])
    assert trials_of(orders, "a") == [trial]
    late, own = (epoch(call("a", process), trial, curve(trial)[0]) for process in ("old", "new"))
    _, verdicts = controller.serve([], [late, own])
    assert verdicts == {("a-old", trial.id): False, ("a-new", trial.id): True}
    assert [r["id"] for r in read(tmp_path / "sweep") if r["event"] == "progress"] == [trial.id]


def test_a_worker_that_does_not_answer_is_to_be_ended_once_and_its_trials_are_trained_elsewhere(tmp_path, caplog):
    sweep, now = open_sweep(make_space(), tmp_path), [0.0]
    controller = controller_of(sweep, tmp_path, devices=2, per_device=1, watchdog=Watchdog(lambda: now[0]))
    assert controller.serve([{**call("a"), "activity": 0}], []) == ({}, {}), "a ping is no call for orders"
    orders, _ = controller.serve([call("a"), call("b", node="other")], [])
    (trial,), (second,) = trials_of(orders, "a"), trials_of(orders, "b")
    while now[0] < SILENT_SECONDS + 1:
        assert controller.take_hanging() == set()
        now[0] += 5
        ping = {**call("b", node="other"), "activity": round(now[0])}
        assert controller.serve([ping], []) == ({}, {})
    assert controller.take_hanging() == {"a"}
    assert controller.take_hanging() == set()
    assert controller.worker_died("a", "killed", node_died=False)
    name = controller.name_of(trial.id)
    assert f"{name} will be trained again: node n, GPU 0: its worker did not answer for 90 s" in caplog.text
    assert "node other" not in caplog.text
    orders, _ = controller.serve([], [epoch(call("b"), second, point) for point in curve(second)])
    assert controller.serve([call("b", node="other")], [])[0].keys() | orders.keys() == {"b"}


def test_a_device_is_kept_free_for_a_trial_that_is_trained_alone_until_that_trial_is_over(tmp_path):
    sweep = open_sweep(make_space(), tmp_path)
    controller = controller_of(sweep, tmp_path, devices=2, per_device=2)
    orders, _ = controller.serve([call("a"), call("b")], [])
    suspects, (first, _) = trials_of(orders, "a"), trials_of(orders, "b")
    controller.worker_died("a", "the process ended", node_died=False)
    orders, _ = controller.serve([call("a", "next")], [])
    assert trials_of(orders, "a") == suspects
    controller.worker_died("a", "the process ended", node_died=False)
    orders, _ = controller.serve([call("b")], [told(call("b"), first.id, error="RuntimeError: boom")])
    for suspect in suspects:
        assert orders == {}, "it trains another trial, and is emptied for a suspect"
        sweep.fail(suspect.id, "over")
        orders, _ = controller.serve([], [])
    assert trials_of(orders, "b") == [first]
