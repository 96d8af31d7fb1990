"""Trials of a device worker have the results that they have alone, and an error ends only the trial that caused it."""

import os
from dataclasses import replace

import pytest
import torch
from safetensors import SafetensorError

from search_spaces.language import Recipe
from tests.fixtures.trials import make_data, make_trial
from trainables.training import training_step
from trainables.training.engine import Engine
from trainables.worker import checkpoint, device_worker, worker_environment
from trainables.worker.checkpoint_store import read_files, write_files
from trainables.worker.device_worker import DeviceLost, DeviceWorker, InProcessTrial, Job
from trainables.worker.worker_environment import WorkerEnvironmentError, environment

RECIPE = Recipe(epochs=3, patience=9)


@pytest.fixture
def job(tiny_bert, tmp_path, monkeypatch):
    """Makes jobs whose trials all have the same made-up task."""
    monkeypatch.setattr(device_worker, "read_data", lambda path: make_data(low=7, high=8))

    def make(seed=1, method="adapter", where="together", phase="search", **settings) -> Job:
        settings = settings or ({} if method == "full" else {"r": 4})
        trial = replace(
            make_trial(method, seed=seed, recipe=RECIPE, **settings), weights=tiny_bert.fingerprint, phase=phase
        )
        return Job(trial=trial, source=str(tiny_bert.path), data=tmp_path, folder=tmp_path / where / trial.id)

    return make


def entered(*jobs, ahead=0) -> DeviceWorker:
    worker = DeviceWorker(torch.device("cpu"), ahead)
    for each in jobs:
        worker.add_trial(each)
    return worker


def finish(worker):
    """Every report of every resident, asked for one by one, until all have ended or failed."""
    reports = {trial_id: [] for trial_id in worker.residents}
    for trial_id in reports:
        worker.request_epoch(trial_id)
    while worker.residents:
        worker.step()
        for trial_id, resident in list(worker.residents.items()):
            if resident.has_report:
                reports[trial_id].append(resident.next_report())
                if reports[trial_id][-1].outcome:
                    worker.remove_trial(trial_id)
                else:
                    worker.request_epoch(trial_id)
    return reports


@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="the peak cannot be started again here")
def test_the_peak_memory_of_a_trial_has_nothing_of_what_ended_before(job):
    ended = bytearray(500 * 2**20)
    worker = entered(job(seed=1))
    with_it = [report.progress.memory_mib for reports in finish(worker).values() for report in reports]
    del ended
    worker.add_trial(job(seed=2))
    without = [report.progress.memory_mib for reports in finish(worker).values() for report in reports]
    assert min(with_it) - max(without) > 400


def elsewhere(job, where):
    return replace(job, folder=job.folder.parent.parent / where / job.trial.id)


def curve(reports):
    return [(r.progress.epoch, r.progress.loss, r.progress.score) for r in reports]


def test_residents_share_steps_and_keep_the_curves_they_have_alone(job, monkeypatch):
    jobs = [job(1), job(2), job(3, "madapter"), job(4, "full")]
    steps = []
    real = Engine.step
    monkeypatch.setattr(Engine, "step", lambda self: (steps.append(len(self.residents)), real(self))[1])
    together = finish(entered(*jobs))
    assert steps.count(3) == 15  # the three that share, in 15 steps, beside them the one that cannot
    assert steps.count(1) == 15
    for each in jobs:
        alone = finish(entered(elsewhere(each, "alone")))
        assert curve(together[each.trial.id]) == curve(alone[each.trial.id])


def test_a_trial_trains_only_the_requested_epochs_and_as_many_ahead_as_allowed(job):
    for ahead in (0, 1):
        jobs = [job(1, where=f"w{ahead}"), job(2, where=f"w{ahead}")]
        worker = entered(*jobs, ahead=ahead)
        first, second = (each.trial.id for each in jobs)
        worker.request_epoch(first)
        while worker.has_work:
            worker.step()
        epochs = {i: len(r._state.progress) for i, r in worker.residents.items()}
        assert epochs == {first: 1 + ahead, second: ahead}
        assert worker.residents[first].has_report
        assert not worker.residents[second].has_report


def test_waiting_and_going_on_changes_no_bit(job):
    jobs = [job(1, where="steady"), job(2, where="steady")]
    steady = finish(entered(*jobs))
    jobs = [elsewhere(each, "halting") for each in jobs]
    worker = entered(*jobs)
    halting = {each.trial.id: [] for each in jobs}
    for i in (0, 1, 1, 0, 0, 1):
        trial_id = jobs[i].trial.id
        worker.request_epoch(trial_id)
        while not worker.residents[trial_id].has_report:
            worker.step()
        halting[trial_id].append(worker.residents[trial_id].next_report())
    for trial_id, reports in halting.items():
        assert curve(reports) == curve(steady[trial_id])


def plant(monkeypatch, fails, error):
    """Make a step's backward fail whenever `fails` says so of the trials in it."""
    real = training_step.backward

    def backward(stacks, backbone, inputs):
        losses = real(stacks, backbone, inputs)  # the gradients are there already: what is left must not count twice
        if fails([state.trial for stack in stacks for state in stack.states]):
            raise error
        return losses

    monkeypatch.setattr(training_step, "backward", backward)


def test_out_of_memory_halves_the_step_and_loses_no_trial(job, monkeypatch, caplog):
    jobs = [job(seed) for seed in range(1, 7)]
    alone = {e.trial.id: finish(entered(elsewhere(e, "alone")))[e.trial.id] for e in jobs}
    plant(monkeypatch, lambda trials: len(trials) > 2, torch.OutOfMemoryError("planted"))
    worker = entered(*jobs)
    reports = finish(worker)
    assert not worker.failures
    assert "a step of 6 trials failed (planted); trying 3" in caplog.text
    for trial_id, expected in alone.items():
        assert curve(reports[trial_id]) == curve(expected)


def test_a_resident_that_cannot_be_trained_is_found_and_the_others_finish(job, monkeypatch):
    jobs = [job(seed) for seed in (1, 2, 3)]
    plant(monkeypatch, lambda trials: any(t.seed == 2 for t in trials), RuntimeError("planted"))
    worker = entered(*jobs)
    reports = finish(worker)
    assert list(worker.failures) == [jobs[1].trial.id]
    assert [len(reports[each.trial.id]) for each in jobs] == [3, 0, 3]


def test_a_checkpoint_that_cannot_be_written_is_an_error_of_the_machine_and_the_other_trials_go_on(job, monkeypatch):
    good, bad = job(1), job(2)
    worker = entered(good, bad)
    save = checkpoint.save_file

    def full(tensors, path):
        if bad.trial.id in str(path):
            raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")
        save(tensors, path)

    monkeypatch.setattr(checkpoint, "save_file", full)
    reports = finish(worker)
    (error,) = worker.failures.values()
    assert isinstance(error, WorkerEnvironmentError)
    assert str(bad.folder) in str(error)
    assert "No space left" in str(error)
    assert len(reports[good.trial.id]) == 3


def test_a_file_in_the_place_of_a_checkpoint_is_replaced(job, caplog):
    each = job(1)
    each.folder.parent.mkdir()
    for place in (each.folder, each.folder.with_name(each.trial.id + ".new")):
        place.write_text("in the way")
    worker = entered(each)
    assert len(finish(worker)[each.trial.id]) == 3
    assert not worker.failures
    assert "not usable" in caplog.text


def test_a_trial_that_enters_again_replaces_itself_and_goes_on_from_its_checkpoint(job):
    each = job(1, phase="final")
    steady = finish(entered(elsewhere(each, "steady")))[each.trial.id]
    worker = entered(each)
    worker.request_epoch(each.trial.id)
    while not worker.residents[each.trial.id].has_report:
        worker.step()
    worker.add_trial(each)
    assert list(worker.residents) == [each.trial.id]
    again = finish(worker)[each.trial.id]
    assert curve(again) == curve(steady)
    assert again[-1].test == steady[-1].test


def test_a_model_with_other_files_is_refused_and_nothing_is_left(job):
    worker = DeviceWorker(torch.device("cpu"))
    wrong = job(1)
    with pytest.raises(WorkerEnvironmentError, match="other files"):
        worker.add_trial(replace(wrong, trial=replace(wrong.trial, weights="0")))
    assert not worker.residents


@pytest.mark.parametrize(
    ("name", "value"),
    [("code", "0" * 16), ("torch", "1.0"), ("transformers", "1.0"), ("tokenizers", "1.0"), ("numpy", "1.0")],
)
def test_a_worker_with_other_code_or_packages_is_refused_by_name_before_it_trains(job, name, value):
    worker, each = DeviceWorker(torch.device("cpu")), job(1)
    worker.add_trial(replace(each, environment=environment()))
    worker.remove_trial(each.trial.id)
    with pytest.raises(WorkerEnvironmentError, match=f"{name} {environment()[name]} instead of {value}"):
        worker.add_trial(replace(each, environment={**environment(), name: value}))
    assert not worker.residents


def test_a_worker_quantises_with_the_version_of_the_driver(job, monkeypatch):
    worker, each = DeviceWorker(torch.device("cpu")), job(1)
    with monkeypatch.context() as patch:
        patch.setattr(worker_environment, "find_spec", lambda name: None)
        with pytest.raises(WorkerEnvironmentError, match=r"'nf4' needs bitsandbytes 0.1, which this worker lacks"):
            worker.add_trial(replace(each, environment={**environment(), "bitsandbytes": "0.1"}))
    pytest.importorskip("bitsandbytes")
    with pytest.raises(WorkerEnvironmentError, match=r"bitsandbytes \S+ instead of 0.1"):
        worker.add_trial(replace(each, environment={**environment(quantized=True), "bitsandbytes": "0.1"}))
    worker.add_trial(replace(each, environment=environment(quantized=True)))


def test_backbones_of_other_precisions_and_block_sizes_are_engines_of_their_own(job):
    pytest.importorskip("bitsandbytes")
    worker = DeviceWorker(torch.device("cpu"))
    recipes = [{}, {"precision": "nf4"}, {"precision": "nf4", "nf4_block_size": 128}, {"precision": "nf4"}]
    for seed, changes in enumerate(recipes):
        each = job(seed)
        trial = replace(each.trial, recipe=replace(each.trial.recipe, **changes))
        worker.add_trial(replace(each, trial=trial, folder=each.folder.parent / trial.id))
    engines = [resident.engine for resident in worker.residents.values()]
    assert len(set(engines)) == 3
    assert engines[1] is engines[3]
    assert [engine.backbone.quantized for engine in engines] == [False, True, True, True]
    sizes = [engine.backbone.num_bytes for engine in engines]
    assert sizes[0] > sizes[1] > sizes[2]


class Elsewhere:
    """Keeps checkpoints as files in memory, as the driver's node does for others."""

    def __init__(self):
        self.kept = {}

    def fetch(self, trial_id, folder):
        if trial_id in self.kept:
            write_files(folder, self.kept[trial_id])

    def store(self, trial_id, folder):
        self.kept[trial_id] = read_files(folder)


def test_a_trial_goes_on_from_the_checkpoint_of_another_node_that_shares_no_folder(job):
    def counted(worker):
        """Finish the worker's trial. Return its reports and the number of steps that were asked for."""
        steps, real = [], worker.step
        worker.step = lambda: (steps.append(1), real())
        (reports,) = finish(worker).values()
        return reports, len(steps)

    store = Elsewhere()
    alone, whole = counted(entered(job(1, where="alone")))
    first = entered(replace(job(1, where="one"), store=store))
    first.request_epoch(job(1).trial.id)
    while not first.residents[job(1).trial.id].has_report:
        first.step()
    assert set(store.kept[job(1).trial.id]) == {"state.json", "state.safetensors"}
    rest, steps = counted(entered(replace(job(1, where="two"), store=store)))
    assert curve(rest) == curve(alone)
    assert steps < 0.75 * whole, "the first of three epochs was not trained again"


@pytest.mark.parametrize("name", ["../state.json", "/tmp/x", "..", ""])
def test_files_of_a_checkpoint_stay_in_its_folder(tmp_path, name):
    with pytest.raises(ValueError, match="is no name of a file"):
        write_files(tmp_path / "trial", {name: b"x"})
    assert not (tmp_path / "trial").exists()


def test_a_trial_alone_in_its_process_reports_one_epoch_at_a_time(job, tmp_path):
    each = job(1)
    record = {"trial": each.trial.to_json(), "source": each.source, "data": "-", "checkpoints": str(tmp_path / "own")}
    own = InProcessTrial(DeviceWorker(torch.device("cpu")), record)
    reports = [own.next_report() for _ in range(3)]
    assert {r["id"] for r in reports} == {each.trial.id}
    assert [r["progress"]["epoch"] for r in reports] == [1, 2, 3]
    assert [bool(r["outcome"]) for r in reports] == [False, False, True]
    own.remove()


@pytest.mark.parametrize("where", ["step", "add_trial"])
def test_an_error_of_the_device_ends_the_worker_and_not_its_residents_one_by_one(job, monkeypatch, where):
    worker = entered(job(1), job(2))
    for each in worker.residents:
        worker.request_epoch(each)

    def fail(self, *arguments):
        raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(Engine, where, fail)
    with pytest.raises(DeviceLost, match="the device failed: CUDA error: an illegal memory access"):
        worker.step() if where == "step" else worker.add_trial(job(3))
    assert not worker.failures
