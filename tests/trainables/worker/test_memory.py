"""Admission by measured memory: a device whose bytes are counted by hand."""

import shutil
from dataclasses import replace

import pytest
import torch

from search_spaces.language import Recipe
from tests.fixtures.captured import fake_steps
from tests.fixtures.trials import make_data, make_trial
from trainables.training import engine, training_step
from trainables.training.captured_steps import SEEN_BEFORE
from trainables.training.engine import Engine
from trainables.worker import device_worker
from trainables.worker.device_worker import DeviceWorker, Job, OutOfDeviceMemory
from trainables.worker.memory import SAFETY_MARGIN, MemoryEstimator, ran_out_of_memory


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


def test_memory_that_is_given_back_before_the_step_is_no_obstacle():
    estimator = MemoryEstimator(CountedMemory(total=2_000, used=1_500))
    estimator.bytes_per_token = 10
    assert not estimator.fits(80)
    assert estimator.fits(80, held=500)


def test_errors_of_libraries_that_lack_memory_are_known():
    for text in ("CUDA error: out of memory", "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"):
        assert ran_out_of_memory(RuntimeError(text))
    assert ran_out_of_memory(torch.OutOfMemoryError("planted"))
    assert not ran_out_of_memory(RuntimeError("device-side assert triggered"))


@pytest.fixture
def place(tiny_bert, tmp_path, monkeypatch):
    """Makes a job with a seed and a method, whose examples all have the same length."""
    monkeypatch.setattr(device_worker, "read_data", lambda path: make_data(train=80, low=7, high=8))

    def make(seed, method="adapter", **settings):
        recipe = Recipe(epochs=2, patience=9)
        settings = settings if method == "full" else {"r": 4}
        trial = replace(make_trial(method, seed=seed, recipe=recipe, **settings), weights=tiny_bert.fingerprint)
        return Job(trial=trial, source=str(tiny_bert.path), data=tmp_path, folder=tmp_path / trial.id)

    return make


def worker_of(jobs, captured):
    worker = DeviceWorker(torch.device("cpu"), captured=lambda device: captured)
    for job in jobs:
        worker.add_trial(job)
        worker.request_epoch(job.trial.id)
        worker.request_epoch(job.trial.id)
    return worker


def finish(worker):
    """Train all to their end. Returns their losses."""
    while worker.has_work:
        worker.step()
    assert not worker.failures
    return {i: [p.loss for p in r._state.progress] for i, r in worker.residents.items()}


@pytest.mark.parametrize("fails", ["compute", "evaluate", "state"])
def test_what_runs_out_of_memory_beside_graphs_is_done_without_them_by_all_trials(fails, place, monkeypatch):
    """An operator-by-operator step, an evaluation or a checkpoint; of the engine with graphs or of one beside it."""
    jobs = [place(1), place(2), place(3, "full")]
    plain = finish(worker_of(jobs, None))
    for job in jobs:
        shutil.rmtree(job.folder)
    captured, raised = fake_steps(), []
    worker = worker_of(jobs, captured)
    where = {"compute": (engine, "compute"), "evaluate": (engine, "evaluate"), "state": (Engine, "state")}[fails]
    real = getattr(*where)

    def planted(*arguments):
        if captured.num_bytes:
            raised.append(fails)
            raise torch.OutOfMemoryError("planted")
        return real(*arguments)

    monkeypatch.setattr(*where, planted)
    assert finish(worker) == {i: pytest.approx(each, abs=1e-6) for i, each in plain.items()}
    assert raised
    assert not worker._max_active
    assert captured.refused


def test_a_trial_that_finds_no_memory_beside_graphs_joins_without_them(place, monkeypatch):
    captured = fake_steps()
    worker = worker_of([place(1)], captured)
    for _ in range(SEEN_BEFORE + 1):
        worker.step()
    assert captured.replays == 1
    real = device_worker.Backbone.load

    def load(*arguments):
        if captured.num_bytes:
            raise torch.OutOfMemoryError("planted")
        return real(*arguments)

    monkeypatch.setattr(device_worker.Backbone, "load", load)
    worker.add_trial(place(3, "full"))
    assert len(worker.residents) == 2


def test_memory_that_runs_out_without_graphs_halves_the_step_as_before(place, monkeypatch, caplog):
    captured, real = fake_steps(torch.OutOfMemoryError("planted")), training_step.backward

    def backward(stacks, backbone, inputs):
        if sum(map(len, stacks)) > 2:
            raise torch.OutOfMemoryError("planted")
        return real(stacks, backbone, inputs)

    monkeypatch.setattr(training_step, "backward", backward)
    losses = finish(worker_of([place(seed) for seed in range(5)], captured))
    assert [len(each) for each in losses.values()] == [2] * 5
    assert "a step of 5 trials failed (planted); trying 2" in caplog.text
    assert captured.replays == 0


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
