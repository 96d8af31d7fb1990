"""A trial's state on disk: what is written is read back, what is damaged is noticed, what is not needed goes."""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from orchestrator.execution.checkpoint_retention import CheckpointRetention
from search_spaces.language import Recipe
from tests.fixtures.fakes import Trial, curve, end_of, make_space, open_sweep
from tests.fixtures.trials import make_data, make_trial
from trainables.worker import checkpoint, device_worker
from trainables.worker.device_worker import DeviceWorker, Job


@pytest.fixture
def opened(tiny_bert, tmp_path, monkeypatch):
    """A function that makes a new device worker with one final trial, as a worker process would."""
    monkeypatch.setattr(device_worker, "read_data", lambda path: make_data())
    trial = replace(
        make_trial("sparse_adapter", r=4, recipe=Recipe(epochs=3)), weights=tiny_bert.fingerprint, phase="final"
    )

    def open_device_worker() -> DeviceWorker:
        worker = DeviceWorker(torch.device("cpu"))
        worker.add_trial(
            Job(trial=trial, source=str(tiny_bert.path), data=tmp_path / "data", folder=tmp_path / trial.id)
        )
        return worker

    return trial, tmp_path / trial.id, open_device_worker


def following(worker: DeviceWorker):
    """The next report of the worker's only trial."""
    (trial_id,) = worker.residents
    worker.request_epoch(trial_id)
    while not worker.residents[trial_id].has_report:
        worker.step()
    return worker.residents[trial_id].next_report()


def rest(worker: DeviceWorker):
    reports = [following(worker)]
    while reports[-1].outcome is None:
        reports.append(following(worker))
    return reports


def scores(reports):
    return [(r.progress.epoch, r.progress.score, r.progress.loss) for r in reports]


def test_a_trial_continues_after_each_epoch_as_if_nothing_had_happened(opened, tmp_path):
    _, folder, open_device_worker = opened
    undisturbed = rest(open_device_worker())
    for epochs in (1, 2, 3):
        folder.rename(tmp_path / f"before{epochs}")
        first = open_device_worker()
        for _ in range(epochs):
            following(first)
        again = rest(open_device_worker())
        assert scores(again) == scores(undisturbed)
        assert again[-1].test == undisturbed[-1].test
        assert again[-1].outcome == undisturbed[-1].outcome


@pytest.mark.parametrize("damage", ["cut", "flip", "missing", "foreign"])
def test_a_damaged_checkpoint_is_not_used(damage, opened, caplog):
    trial, folder, open_device_worker = opened
    following(open_device_worker())
    tensors = folder / "state.safetensors"
    content = bytearray(tensors.read_bytes())
    if damage == "cut":
        tensors.write_bytes(content[:-5])
    elif damage == "flip":
        content[-3] ^= 1
        tensors.write_bytes(content)
    elif damage == "missing":
        (folder / "state.json").unlink()
    assert checkpoint.read(folder, replace(trial, seed=99) if damage == "foreign" else trial) is None
    assert "not usable" in caplog.text


def test_a_kill_between_the_renames_leaves_a_whole_checkpoint(opened):
    trial, folder, open_device_worker = opened
    following(open_device_worker())
    folder.rename(folder.with_name(folder.name + ".old"))
    found = checkpoint.read(folder, trial)
    assert found is not None
    assert found.epoch == 1


def test_what_a_final_keeps_is_measured_before_it_may_go(tmp_path):
    sweep = open_sweep(make_space(tasks=("t",)), tmp_path)
    folder, events = tmp_path / "checkpoints", []
    keeper = CheckpointRetention(sweep, folder, events.append)
    first, second = sweep.suggest(), sweep.suggest()
    for trial in (first, second):
        (folder / trial.id).mkdir(parents=True)
        save_file({"best": torch.zeros(250), "keep": torch.ones(3, 2)}, folder / trial.id / "state.safetensors")
    size = (folder / first.id / "state.safetensors").stat().st_size
    keeper.trial_ended(first.id)
    assert events == []  # it has not ended
    points = curve(first)
    for point in points[:-1]:
        assert sweep.record(first.id, point)
    sweep.record(first.id, points[-1], *end_of(first, points[-1]))
    keeper.trial_ended(first.id)
    assert events == [{"event": "saved", "id": first.id, "bytes": size, "stored": 256}]
    assert size > 4 * 256


def test_only_the_best_of_a_cell_and_running_trials_keep_their_checkpoints(tmp_path):
    sweep = open_sweep(make_space(tasks=("t",)), tmp_path)
    folder = tmp_path / "checkpoints"
    keeper = CheckpointRetention(sweep, folder)
    running = sweep.suggest()
    (folder / running.id).mkdir(parents=True)
    scores_of = {}
    while isinstance(trial := sweep.suggest(), Trial):
        (folder / trial.id).mkdir()
        points = curve(trial)
        for point in points[:-1]:
            if not sweep.record(trial.id, point):
                break
        else:
            sweep.record(trial.id, points[-1], *end_of(trial, points[-1]))
            if trial.phase == "search":
                scores_of.setdefault(trial.cell, {})[trial.id] = points[-1].best_score
        keeper.trial_ended(trial.id)
        if len(scores_of.get(running.cell, {})) + len(list(folder.iterdir())) > 40:
            break
    left = {path.name for path in folder.iterdir()}
    assert running.id in left
    assert len(left) <= 3
    (folder / "unknown").mkdir()
    keeper.tidy()
    assert {path.name for path in folder.iterdir()} == left
