"""The process around a worker: calls from the actor's loop, training in a thread, one message at a time to the mailbox."""

import asyncio
import threading
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from search_spaces.language import Recipe
from tests.fixtures.trials import make_data, make_trial
from trainables.worker import device_worker
from trainables.worker.device_worker import DeviceWorker
from trainables.worker.ray_actors import DeviceWorkerActor
from trainables.worker.worker_environment import WorkerEnvironmentError


@pytest.fixture
def job(tiny_bert, tmp_path, monkeypatch):
    monkeypatch.setattr(device_worker, "read_data", lambda path: make_data())
    recipe = Recipe(epochs=3)

    def make(seed=1, **changes):
        trial = replace(make_trial(seed=seed, r=4, recipe=recipe), weights=tiny_bert.fingerprint)
        places = {"source": str(tiny_bert.path), "data": "-", "checkpoints": str(tmp_path)}
        return {"id": trial.id, "trial": {**trial.to_json(), **changes}, **places}

    return make


class Driver:
    """A mailbox whose driver answers after `seconds`; keeps every message, and how many were under way at once."""

    def __init__(self, goes_on=lambda report: report["outcome"] is None, seconds=0.0):
        self.messages, self.most = [], 0
        self._goes_on, self._seconds, self._under_way = goes_on, seconds, 0
        self.report = SimpleNamespace(remote=self._answer)

    def epochs(self, job):
        return [r["progress"]["epoch"] for message in self.messages for r in message if r["id"] == job["id"]]

    async def _answer(self, reports):
        self.messages.append(reports)
        self._under_way += 1
        self.most = max(self.most, self._under_way)
        await asyncio.sleep(self._seconds)
        self._under_way -= 1
        return {report["id"]: self._goes_on(report) for report in reports}


def test_trials_train_side_by_side_and_each_is_over_when_its_driver_says_so(job):
    driver = Driver(lambda report: report["outcome"] is None and (report["id"], report["progress"]["epoch"]) != second)
    jobs = [job(seed) for seed in (1, 2, 3)]
    second = (jobs[1]["id"], 2)

    async def train_all():
        actor = DeviceWorkerActor(False, driver)
        return await asyncio.gather(*(actor.train(each) for each in jobs))

    assert asyncio.run(train_all()) == [True] * 3
    assert [driver.epochs(each) for each in jobs] == [[1, 2, 3], [1, 2], [1, 2, 3]]


def test_what_residents_finish_while_a_message_is_under_way_travels_in_one(job):
    driver = Driver(seconds=0.3)
    jobs = [job(seed) for seed in range(1, 7)]

    async def train_all():
        actor = DeviceWorkerActor(False, driver)
        await asyncio.gather(*(actor.train(each) for each in jobs))

    asyncio.run(train_all())
    assert driver.most == 1, "a worker sent a message before the last one was answered"
    assert sum(map(len, driver.messages)) == 18
    assert len(driver.messages) <= 8, [len(m) for m in driver.messages]


def test_an_error_reaches_the_trial_that_it_concerns_and_the_actor_lives_on(job):
    driver = Driver()

    async def one_after_the_other():
        actor = DeviceWorkerActor(False, driver)
        with pytest.raises(WorkerEnvironmentError, match="other files"):
            await actor.train(job(1, weights="0"))
        return await actor.train(job(2))

    assert asyncio.run(one_after_the_other())
    assert driver.epochs(job(2)) == [1, 2, 3]


def test_a_trial_that_is_added_again_replaces_itself(job):
    driver = Driver(seconds=0.05)

    async def twice():
        actor = DeviceWorkerActor(False, driver)
        lost = asyncio.create_task(actor.train(job(1)))
        while not driver.messages:
            await asyncio.sleep(0.01)
        over = await actor.train(job(1))
        lost.cancel()
        return over

    assert asyncio.run(twice())
    assert driver.epochs(job(1))[-3:] == [1, 2, 3]


def test_a_removal_that_was_called_before_a_trial_came_back_does_not_end_it(job):
    """The thread is in a step meanwhile. A trial that was ended in this way was waited for, and never trained."""
    driver, started, go_on = Driver(), threading.Event(), threading.Event()

    def step(worker):
        started.set()
        go_on.wait(10)

    async def removed_and_added():
        actor = DeviceWorkerActor(False, driver)
        others = [asyncio.create_task(actor._in_thread(step))]
        await asyncio.to_thread(started.wait, 10)
        others.append(asyncio.create_task(actor.remove(job(1)["id"])))
        await asyncio.sleep(0)
        over = asyncio.create_task(actor.train(job(1)))
        await asyncio.sleep(0)
        go_on.set()
        await asyncio.gather(*others)
        return await over

    assert asyncio.run(removed_and_added())
    assert driver.epochs(job(1)) == [1, 2, 3]


def test_without_memory_for_one_more_a_trial_is_told_to_wait_but_not_when_it_is_alone(job, monkeypatch):
    real = DeviceWorker.add_trial

    def add_trial(self, added):
        if added.trial.seed == 2:
            raise torch.OutOfMemoryError("planted")
        real(self, added)

    monkeypatch.setattr(DeviceWorker, "add_trial", add_trial)
    driver = Driver(seconds=1.0)

    async def scenes():
        actor = DeviceWorkerActor(False, driver)
        with pytest.raises(torch.OutOfMemoryError):
            await actor.train(job(2))
        first = asyncio.create_task(actor.train(job(1)))
        while not driver.messages:
            await asyncio.sleep(0.01)
        refused = await actor.train(job(2))
        await actor.remove(job(1)["id"])
        assert await first
        return refused

    assert asyncio.run(scenes()) is False


def test_a_worker_that_cannot_be_opened_fails_its_trials_with_the_reason(job, monkeypatch):
    def broken(gpu, epochs_ahead):
        raise RuntimeError("no driver for this device")

    monkeypatch.setattr(device_worker, "open_device_worker", broken)

    async def enter():
        return await DeviceWorkerActor(True, Driver()).train(job(1))

    with pytest.raises(RuntimeError, match="no driver"):
        asyncio.run(asyncio.wait_for(enter(), 20))
