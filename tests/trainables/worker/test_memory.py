"""Admission by measured memory: a device whose bytes are counted by hand."""

from dataclasses import replace

import pytest
import torch

from tests.fixtures.trials import make_data, make_trial
from trainables.worker import device_worker
from trainables.worker.device_worker import DeviceWorker, Job, OutOfDeviceMemory
from trainables.worker.memory import SAFETY_MARGIN, MemoryEstimator


class CountedMemory:
    """Every step needs `per_token` bytes for each of the tokens that a test says it has."""

    def __init__(self, total, used=1000):
        self.all, self.now, self.most = total, used, used

    def used(self):
        return self.now

    def total(self):
        return self.all

    def reset_peak(self):
        self.most = self.now

    def peak(self):
        return self.most


def test_the_largest_step_so_far_decides_what_fits():
    memory = CountedMemory(total=11_000)
    estimator = MemoryEstimator(memory)
    assert estimator.fits(10**9)  # nothing is known yet
    for need, tokens in ((3_000, 100), (2_000, 100)):
        with estimator.observe_step(tokens):
            memory.most = memory.now + need
    assert estimator.bytes_per_token == 30
    most = 10_000 / 30 / (1 + SAFETY_MARGIN)
    assert estimator.fits(most - 1)
    assert not estimator.fits(most + 1)


def test_a_step_that_failed_changes_no_estimate():
    memory = CountedMemory(total=11_000)
    estimator = MemoryEstimator(memory)

    def fail():
        with estimator.observe_step(10):
            memory.most = 10**9
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert estimator.bytes_per_token == 0


def test_a_device_worker_admits_as_many_trials_as_its_memory_holds(tiny_bert, tmp_path, monkeypatch):
    data = make_data(low=8, high=9)  # eight tokens an example, eight examples a batch
    monkeypatch.setattr(device_worker, "read_data", lambda path: data)
    memory = CountedMemory(total=1000 + 64 * 10 * 2 * 1.3)
    worker = DeviceWorker(torch.device("cpu"), memory=MemoryEstimator(memory))

    def enter(seed):
        trial = replace(make_trial("adapter", r=4, seed=seed), weights=tiny_bert.fingerprint)
        worker.add_trial(Job(trial=trial, source=str(tiny_bert.path), data=tmp_path, folder=tmp_path / str(seed)))
        return trial.id

    first = enter(1)
    worker.request_epoch(first)
    real = worker.residents[first].engine.step
    monkeypatch.setattr(
        worker.residents[first].engine, "step", lambda: (real(), setattr(memory, "most", 1000 + 640))[0]
    )
    worker.step()
    enter(2)
    with pytest.raises(OutOfDeviceMemory, match="192 tokens a step beside 2 trials"):
        enter(3)
    worker.remove_trial(first)
    enter(3)
    assert len(worker.residents) == 2
