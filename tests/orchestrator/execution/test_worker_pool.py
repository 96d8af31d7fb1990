"""Which device gets the next trial, and what becomes of the trials of a process that ended."""

import pytest

from orchestrator.execution.worker_pool import DEATHS, DEATHS_SHARED, OPENING_SECONDS, WorkerPool
from tests.fixtures.controllers import call
from tests.fixtures.trials import make_trial

WANTED = 100


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def pool_of(devices, per_device, names=None):
    clock = Clock()
    pool = WorkerPool(devices, per_device, clock)
    for name in names if names is not None else [f"w{i}" for i in range(devices)]:
        pool.greet(call(name))
    return pool, clock


def trials(number, start=0):
    return [make_trial(seed=start + i) for i in range(number)]


def placed(pool, number, wanted=WANTED, start=0):
    return [pool.place(each, wanted) for each in trials(number, start)]


def test_trials_are_dealt_to_the_emptiest_device():
    pool, _ = pool_of(3, 4)
    assert placed(pool, 7) == ["w0", "w1", "w2", "w0", "w1", "w2", "w0"]
    assert pool.running == 7


def test_eight_startable_trials_use_all_four_devices_however_many_fit():
    pool, _ = pool_of(4, 16, ["w0"])
    assert placed(pool, 3, wanted=8) == ["w0", "w0", None], "the other three devices are expected"
    for name in ("w1", "w2", "w3"):
        pool.greet(call(name))
    assert placed(pool, 7, wanted=8, start=5) == ["w1", "w2", "w3", "w1", "w2", "w3", None]
    assert not pool.has_room(8)


def test_devices_that_do_not_come_are_not_waited_for_for_ever():
    pool, clock = pool_of(4, 16, ["w0"])
    clock.now = OPENING_SECONDS
    assert placed(pool, 9, wanted=8) == ["w0"] * 8 + [None]


def test_among_equals_a_device_that_has_the_model_is_chosen():
    from dataclasses import replace

    pool, _ = pool_of(2, 4)
    other = make_trial(seed=1)
    other = replace(other, cell=replace(other.cell, model="other"))
    first, second = make_trial(seed=2), make_trial(seed=3)
    assert pool.place(first, WANTED) == "w0"
    assert pool.place(other, WANTED) == "w1"
    pool.release(first.id)
    pool.release(other.id)
    assert pool.place(replace(other, seed=9), WANTED) == "w1"
    assert pool.place(second, WANTED) == "w0"


def test_those_with_the_fewest_trials_leave_first_and_get_no_more():
    pool, _ = pool_of(3, 4)
    first, second, third = trials(3)
    assert [pool.place(each, WANTED) for each in (first, second, third)] == ["w0", "w1", "w2"]
    pool.release(second.id)
    pool.keep(2)
    assert (len(pool), pool.left) == (2, ["w1"])
    pool.end("w0")
    assert pool.has(first.id, "w0-p"), "it has not ended in order"
    pool.end("w1")
    pool.keep(1)
    assert len(pool) == 1
    assert pool.left == []
    leaving, staying = (first, third) if pool.is_leaving(first.id) else (third, first)
    assert pool.is_leaving(leaving.id)
    assert not pool.is_leaving(staying.id)
    assert len({*placed(pool, 3, start=5)}) == 1, "all to the one that stays"
    pool.keep(9)
    assert len(pool) == 1, "it goes although there would be room again"


def test_workers_that_cannot_train_leave_before_all_others():
    pool, _ = pool_of(2, 4, ["w0"])
    pool.greet(call("w1", node="odd", unfit="no model"))
    placed(pool, 1)
    pool.keep(1)
    assert pool.left == ["w1"]


def test_only_waiting_workers_get_trials():
    pool, _ = pool_of(2, 4)
    pool.answered("w0")
    assert placed(pool, 2) == ["w1", "w1"]
    assert pool.idle == []
    pool.greet(call("w0"))
    assert pool.idle == ["w0"]


def test_a_new_process_gives_the_trials_of_the_former_one_back():
    pool, _ = pool_of(1, 4)
    first, second = trials(2)
    pool.place(first, WANTED)
    pool.place(second, WANTED)
    assert pool.greet(call("w0")) == [], "the same process"
    assert pool.has(first.id, "w0-p")
    assert pool.greet(call("w0", "q")) == [first, second]
    assert not pool.has(first.id, "w0-p")
    assert pool.running == 0


def test_a_trial_whose_workers_died_gets_a_device_of_its_own_and_at_last_none():
    pool, _ = pool_of(2, 4)
    suspect, other = trials(2)
    for death in range(1, DEATHS + 1):
        name = pool.place(suspect, WANTED)
        if death > DEATHS_SHARED:
            assert pool.place(other, WANTED) not in (name, None), "nothing is put beside it"
            pool.release(other.id)
        assert pool.lose(name) == [suspect]
        assert pool.died_too_often(suspect.id) == (death == DEATHS)
        pool.greet(call(name, str(death)))


def test_such_a_trial_waits_until_a_device_is_empty():
    pool, _ = pool_of(1, 4)
    suspect, other = trials(2)
    for death in range(DEATHS_SHARED):
        pool.place(suspect, WANTED)
        pool.lose("w0")
        pool.greet(call("w0", str(death)))
    assert pool.place(other, WANTED) == "w0"
    assert pool.place(suspect, WANTED) is None
    pool.release(other.id)
    assert pool.place(suspect, WANTED) == "w0"


def suspect_of(pool, name):
    """A trial whose worker has died so often that it is trained alone."""
    (suspect,) = trials(1, start=90)
    for death in range(DEATHS_SHARED):
        assert pool.place(suspect, WANTED) == name
        pool.lose(name)
        pool.greet(call(name, f"after {death}"))
    return suspect


def test_the_emptiest_device_is_kept_free_for_such_a_trial():
    pool, _ = pool_of(1, 4)
    suspect = suspect_of(pool, "w0")
    pool.greet(call("w1"))
    first, second, third, fourth = trials(4)
    assert [pool.place(each, WANTED) for each in (first, second, third)] == ["w0", "w1", "w0"]
    assert pool.place(suspect, WANTED) is None
    assert [pool.place(fourth, WANTED), *placed(pool, 3, start=10)] == ["w0", "w0", None, None], "w1 is reserved"
    assert not pool.has_room(WANTED)
    pool.release(second.id)
    assert not pool.has_room(WANTED)
    assert pool.place(suspect, WANTED) == "w1"


def test_no_device_is_kept_free_for_a_trial_that_is_over_or_on_a_machine_that_cannot_train():
    pool, _ = pool_of(1, 2)
    suspect = suspect_of(pool, "w0")
    pool.greet(call("w1", node="bad", unfit="other code"))
    assert placed(pool, 1) == ["w0"]
    assert pool.place(suspect, WANTED) is None
    assert not pool.has_room(WANTED), "the device without trials is not fit, so w0 is reserved"
    pool.clear_reservation()
    assert pool.has_room(WANTED)


def test_a_lost_node_is_not_the_fault_of_its_trials():
    pool, _ = pool_of(1, 4)
    (trial,) = trials(1)
    for i in range(DEATHS + 1):
        pool.place(trial, WANTED)
        assert pool.lose("w0", counted=False) == [trial]
        pool.greet(call("w0", str(i)))
    assert not pool.died_too_often(trial.id)


def test_a_full_device_gets_no_more_until_one_of_its_trials_ends():
    pool, _ = pool_of(1, 4)
    first, second, third = trials(3)
    for trial in (first, second, third):
        pool.place(trial, WANTED)
    pool.release(third.id, crowded=True)
    assert not pool.has_room(WANTED)
    pool.release(first.id)
    assert pool.place(third, WANTED) == "w0"


def test_a_node_that_is_set_aside_gets_nothing_and_what_starts_there_later_neither():
    pool, _ = pool_of(3, 2, ["w0"])
    pool.greet(call("w1", node="bad"))
    pool.set_aside("bad", "disk full")
    pool.greet(call("w2", node="bad"))
    assert pool.fit_nodes() == {"n"}
    assert placed(pool, 3) == ["w0", "w0", None]
    assert pool.why_unfit() == ""


@pytest.mark.parametrize("devices", [1, 2])
def test_where_no_machine_can_train_the_reason_is_told_once_none_is_expected(devices):
    clock = Clock()
    pool = WorkerPool(devices, 2, clock)
    assert pool.why_unfit() == ""
    pool.greet(call("w0", unfit="other code"))
    assert pool.why_unfit() == ("other code" if devices == 1 else "")
    clock.now = OPENING_SECONDS
    assert pool.why_unfit() == "other code"
