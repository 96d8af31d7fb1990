"""Which workers hang: those that do not answer, and those whose training stands still. Time is a number here."""

import pytest

from orchestrator.execution.watchdog import (
    LOADING_SECONDS,
    PAUSE_SECONDS,
    PING_SECONDS,
    SILENT_SECONDS,
    STILL_SECONDS,
    STILL_TIMES,
    Watchdog,
)


class Workers:
    """A watchdog that is asked every second. Workers ping with the number of their steps, unless they are `silent`."""

    def __init__(self):
        self.now, self.steps, self.silent, self.idle, self.found = 0.0, {}, set(), set(), {}
        self.process = "1"
        self.watchdog = Watchdog(lambda: self.now)

    def call(self, name, **more):
        return {"worker": name, "process": f"{name}{self.process}", "node": "10.0.0.3", "device": "GPU 1", **more}

    def open(self, *names):
        for name in names:
            self.watchdog.note(self.call(name))
            self.steps[name] = 0

    def pass_time(self, seconds, training=()):
        """Let time pass. Those in `training` do a step each second. Collects in `found` when each was found, and why."""
        for _ in range(round(seconds)):
            self.now += 1
            for name in self.steps:
                self.steps[name] += name in training
                if self.now % PING_SECONDS == 0 and name not in self.silent:
                    self.watchdog.note(self.call(name, activity=self.steps[name]))
            for name, reason in self.watchdog.find_hanging(self.idle).items():
                self.found.setdefault(name, []).append((self.now, reason))


@pytest.fixture
def workers():
    return Workers()


def test_a_worker_that_does_not_answer_is_found_with_its_node_and_device_and_others_are_not(workers):
    workers.open("a", "b")
    workers.pass_time(300, training=("a", "b"))
    assert not workers.found
    workers.silent = {"a"}
    workers.pass_time(SILENT_SECONDS + 2, training=("b",))
    ((when, reason),) = workers.found.pop("a")
    assert 300 + SILENT_SECONDS < when <= 302 + SILENT_SECONDS
    assert reason == "node 10.0.0.3, GPU 1: its worker did not answer for 90 s"
    assert not workers.found


def test_one_that_could_not_be_ended_is_found_again_after_as_long(workers):
    workers.open("a")
    workers.silent = {"a"}
    workers.pass_time(3 * SILENT_SECONDS + 10)
    assert [when for when, _ in workers.found["a"]] == [
        SILENT_SECONDS + 1,
        2 * SILENT_SECONDS + 2,
        3 * SILENT_SECONDS + 3,
    ]


def test_a_worker_that_answers_and_trains_no_step_is_found_and_one_with_slow_epochs_is_not(workers):
    workers.open("a", "b")
    workers.pass_time(60, training=("a", "b"))
    workers.pass_time(STILL_SECONDS + PING_SECONDS + 1, training=("b",))
    assert list(workers.found) == ["a"]
    ((_, reason),) = workers.found["a"]
    assert reason == "node 10.0.0.3, GPU 1: its worker did no step of training or evaluation for 10 min"
    workers.pass_time(10 * STILL_SECONDS, training=("a", "b"))
    assert len(workers.found["a"]) == 1


def test_an_idle_worker_may_wait_and_then_has_longer_for_its_first_step(workers):
    workers.open("a")
    workers.pass_time(60, training=("a",))
    workers.idle = {"a"}
    workers.pass_time(2 * LOADING_SECONDS)
    workers.idle = set()
    workers.pass_time(LOADING_SECONDS - 1)
    assert not workers.found
    workers.pass_time(2)
    assert len(workers.found["a"]) == 1


@pytest.mark.parametrize("silent", [set(), {"a"}])
def test_a_worker_that_hangs_before_it_calls_for_orders_is_found_but_may_take_long(workers, silent):
    workers.watchdog.note(workers.call("a", activity=0))
    workers.steps["a"], workers.silent = 0, silent
    workers.pass_time(LOADING_SECONDS)
    assert not workers.found
    workers.pass_time(1)
    assert list(workers.found) == ["a"]


def test_where_steps_are_slow_several_times_the_slowest_is_allowed(workers):
    workers.open("a")
    slow = STILL_SECONDS / 2
    workers.pass_time(60, training=("a",))
    workers.pass_time(slow)
    workers.pass_time(60, training=("a",))
    workers.pass_time(STILL_TIMES * slow - PING_SECONDS)
    assert not workers.found
    workers.pass_time((STILL_TIMES + 3) * PING_SECONDS)
    assert len(workers.found["a"]) == 1


@pytest.mark.parametrize("training", [("a",), ()])
def test_a_time_in_which_the_driver_did_not_run_counts_for_no_worker(workers, training):
    workers.open("a")
    workers.pass_time(60, training=("a",))
    workers.now += 10 * STILL_SECONDS
    workers.pass_time(PAUSE_SECONDS, training=training)
    workers.pass_time(SILENT_SECONDS, training=training)
    assert not workers.found
    workers.silent = {"a"}
    workers.pass_time(SILENT_SECONDS + 1)
    assert len(workers.found["a"]) == 1


def test_a_process_that_ended_is_watched_no_longer_even_if_a_call_of_it_comes_late(workers):
    workers.open("a")
    late = workers.call("a", activity=7)
    workers.watchdog.forget("a")
    assert not workers.watchdog.note(late)
    workers.steps.clear()
    workers.pass_time(2 * SILENT_SECONDS)
    assert not workers.found
    workers.process = "2"
    workers.open("a")
    workers.watchdog.note(late)
    workers.silent = {"a"}
    workers.pass_time(SILENT_SECONDS + 1)
    assert len(workers.found["a"]) == 1, "its successor is"
