"""The process around a lane: calls from the actor's loop, training in a thread, answers to whoever asked."""

import asyncio
import json
from dataclasses import replace

import pytest
import torch
from conftest import make_data, make_trial

from search_spaces.language import Recipe
from trainables import lane as lanes
from trainables.host import LaneHost
from trainables.lane import Lane


@pytest.fixture
def job(tiny_bert, tmp_path, monkeypatch):
    monkeypatch.setattr(lanes, "read_data", lambda path: make_data())
    recipe = Recipe(epochs=2)

    def make(seed=1, **changes):
        trial = replace(make_trial(seed=seed, r=4, recipe=recipe), weights=tiny_bert.fingerprint)
        places = {"source": str(tiny_bert.path), "data": "-", "checkpoints": str(tmp_path)}
        return {"id": trial.id, "trial": {**trial.to_json(), **changes}, **places}

    return make


async def train(host, job):
    await host.enter(job)
    reports = [json.loads(await host.next(job["id"]))]
    while reports[-1]["outcome"] is None:
        reports.append(json.loads(await host.next(job["id"])))
    await host.leave(job["id"])
    return [r["progress"]["epoch"] for r in reports]


def test_trials_train_side_by_side_and_each_hears_of_its_own_epochs(job):
    async def both():
        host = LaneHost(gpu=False)
        return await asyncio.gather(*(train(host, job(seed)) for seed in (1, 2, 3)))

    assert asyncio.run(both()) == [[1, 2]] * 3


def test_an_error_reaches_the_trial_that_it_concerns_and_the_host_lives_on(job):
    async def one_after_the_other():
        host = LaneHost(gpu=False)
        with pytest.raises(ValueError, match="other files"):
            await host.enter(job(1, weights="0"))
        with pytest.raises(KeyError):
            await host.next("nobody")
        return await train(host, job(2))

    assert asyncio.run(one_after_the_other()) == [1, 2]


def test_without_memory_for_one_more_a_trial_is_told_to_wait_but_not_when_it_is_alone(job, monkeypatch):
    real = Lane.enter

    def enter(self, entering):
        if entering.trial.seed == 2:
            raise torch.OutOfMemoryError("planted")
        real(self, entering)

    monkeypatch.setattr(Lane, "enter", enter)

    async def scenes():
        host = LaneHost(gpu=False)
        with pytest.raises(torch.OutOfMemoryError):
            await host.enter(job(2))
        assert await host.enter(job(1)) is not None
        refused = await host.enter(job(2))
        await host.leave(job(1)["id"])
        return refused

    assert asyncio.run(scenes()) is None


def test_a_lane_that_cannot_be_opened_tells_everybody_why(job, monkeypatch):
    def broken(gpu, ahead):
        raise RuntimeError("no driver for this device")

    monkeypatch.setattr(lanes, "open_lane", broken)

    async def enter():
        return await LaneHost(gpu=True).enter(job(1))

    with pytest.raises(RuntimeError, match="no driver"):
        asyncio.run(asyncio.wait_for(enter(), 20))
