"""A trial's state on disk: what is written is read back, what is damaged is noticed, what is not needed goes."""

import json
import shutil
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from orchestrator.execution.checkpoint_retention import CheckpointRetention
from orchestrator.run_options import KEEPS
from search_spaces.events import CheckpointMeasured
from search_spaces.language import Recipe
from tests.fixtures.fakes import Trial, curve, end_of, make_space, open_sweep
from tests.fixtures.trials import make_data, make_trial
from trainables.worker import checkpoint, device_worker
from trainables.worker.checkpoint_store import CheckpointFolder, file_checksum, record_checksum, replace_folder
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


def _rewritten(folder, tensors=None, checksums=True, **changes):
    """Replace tensors or fields of a checkpoint, with checksums that fit the new content if `checksums`."""
    path = folder / "state.safetensors"
    if isinstance(tensors, bytes):
        path.write_bytes(tensors)
    elif tensors is not None:
        save_file(tensors(load_file(path)), path)
    record = json.loads((folder / "state.json").read_text()) | changes
    if checksums:
        record |= {"checksum": file_checksum(path)}
        del record["record_checksum"]
        record["record_checksum"] = record_checksum(record)
    (folder / "state.json").write_text(json.dumps(record))


def _better(folder):
    record = json.loads((folder / "state.json").read_text())
    record["progress"][0]["best_score"] += 1
    _rewritten(folder, checksums=False, progress=record["progress"])


def _flipped(path, place):
    content = bytearray(path.read_bytes())
    content[place] ^= 4
    path.write_bytes(content)


DAMAGES = {
    "tensors cut": lambda f: (f / "state.safetensors").write_bytes((f / "state.safetensors").read_bytes()[:100]),
    "tensors empty": lambda f: (f / "state.safetensors").write_bytes(b""),
    "tensors flipped": lambda f: _flipped(f / "state.safetensors", -3),
    "a header of 2^62 bytes": lambda f: _rewritten(f, (2**62).to_bytes(8, "little") + b"{}"),
    "tensors of another shape": lambda f: _rewritten(f, lambda found: {name: torch.zeros(3) for name in found}),
    "a tensor is missing": lambda f: _rewritten(f, lambda found: {"best": found["best"]}),
    "an unknown tensor": lambda f: _rewritten(f, lambda found: {**found, "more": found["best"].clone()}),
    "record empty": lambda f: (f / "state.json").write_bytes(b""),
    "record cut": lambda f: (f / "state.json").write_bytes((f / "state.json").read_bytes()[:50]),
    "record nested deeply": lambda f: (f / "state.json").write_text("[" * 200_000),
    "record of another kind": lambda f: (f / "state.json").write_text("[1]"),
    "another score": _better,
    "another epoch": lambda f: _rewritten(f, epoch=2),
    "no progress": lambda f: _rewritten(f, epoch=0, progress=[]),
    "done without its test": lambda f: _rewritten(f, done=True),
    "another trial's": lambda f: _rewritten(f, trial="0" * 16),
    "a file": lambda f: (shutil.rmtree(f), f.write_text("x")),
    "gone": shutil.rmtree,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_every_damage_of_a_checkpoint_is_a_warning_and_the_trial_ends_with_the_same_result(damage, opened, caplog):
    _, folder, open_device_worker = opened
    undisturbed = rest(open_device_worker())
    shutil.rmtree(folder)
    following(open_device_worker())
    DAMAGES[damage](folder)
    worker = open_device_worker()
    again = rest(worker)
    assert not worker.failures
    assert scores(again) == scores(undisturbed)
    assert again[-1].test == undisturbed[-1].test
    assert ("not usable" in caplog.text) == (damage != "gone")


def test_a_checkpoint_of_an_earlier_version_without_a_checksum_of_its_record_is_continued(opened, caplog):
    trial, folder, open_device_worker = opened
    following(open_device_worker())
    record = json.loads((folder / "state.json").read_text())
    del record["record_checksum"]
    (folder / "state.json").write_text(json.dumps(record))
    assert checkpoint.read(folder, trial).epoch == 1
    assert "not usable" not in caplog.text


def test_a_kill_between_the_renames_leaves_a_whole_checkpoint(opened):
    trial, folder, open_device_worker = opened
    following(open_device_worker())
    folder.rename(folder.with_name(folder.name + ".old"))
    found = checkpoint.read(folder, trial)
    assert found is not None
    assert found.epoch == 1


def test_a_second_kill_before_the_next_checkpoint_is_in_its_place_leaves_that_one(opened, monkeypatch):
    trial, folder, open_device_worker = opened
    following(open_device_worker())
    folder.rename(folder.with_name(folder.name + ".old"))

    def killed(*paths):
        raise KeyboardInterrupt

    monkeypatch.setattr("os.rename", killed)
    with pytest.raises(KeyboardInterrupt):
        replace_folder(folder, lambda fresh: None)
    shutil.rmtree(folder.with_name(folder.name + ".new"))  # as the next driver does
    assert checkpoint.read(folder, trial).epoch == 1


def test_what_a_final_keeps_is_measured_before_it_may_go(tmp_path):
    sweep = open_sweep(make_space(tasks=("t",)), tmp_path)
    folder, events = tmp_path / "checkpoints", []
    keeper = CheckpointRetention(sweep, CheckpointFolder(folder), events.append)
    first, second = sweep.next_trial(), sweep.next_trial()
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
    assert events == [CheckpointMeasured(id=first.id, bytes=size, stored=256)]
    assert size > 4 * 256


def test_a_size_that_a_killed_driver_did_not_record_is_recorded_at_the_next_start_before_the_checkpoint_goes(tmp_path):
    sweep = open_sweep(make_space(tasks=("t",)), tmp_path)
    folder, events = tmp_path / "checkpoints", []
    trials = [sweep.next_trial(), sweep.next_trial()]
    for trial in trials:
        (folder / trial.id).mkdir(parents=True)
        save_file({"best": torch.zeros(250)}, folder / trial.id / "state.safetensors")
    for point in (points := curve(trials[0]))[:-1]:
        sweep.record(trials[0].id, point)
    sweep.record(trials[0].id, points[-1], *end_of(trials[0], points[-1]))
    measured = sweep._ledger.history.measured
    CheckpointRetention(sweep, CheckpointFolder(folder), events.append, measured).tidy()
    assert [(event.id, event.stored) for event in events] == [(trials[0].id, 250)]
    sweep._ledger.append(*events)
    CheckpointRetention(sweep, CheckpointFolder(folder), events.append, measured).tidy()
    assert len(events) == 1, "it is measured once"


def run_to_the_end(sweep, keeper, folder):
    """Runs all trials of the sweep with a checkpoint each. Returns the finals by cell; test scores rank them reversely."""
    finals = {}
    while isinstance(trial := sweep.next_trial(), Trial):
        (folder / trial.id).mkdir(parents=True)
        points = curve(trial)
        if all(sweep.record(trial.id, point) for point in points[:-1]):
            outcome, test = end_of(trial, points[-1])
            if test:
                test = replace(test, metrics={"accuracy": 100 - outcome.best_score})
                outcome = replace(outcome, metrics=test.metrics)
                finals.setdefault(trial.cell, {})[trial.id] = outcome.best_score
            sweep.record(trial.id, points[-1], outcome, test)
        keeper.trial_ended(trial.id)
    assert sweep.finished
    return finals


def test_of_each_cell_the_finals_are_kept_that_were_asked_for_also_when_a_sweep_is_continued(tmp_path):
    space = make_space(tasks=("t",), budget=replace(make_space().budget, final_seeds=3))
    for keep in KEEPS:
        sweep, folder = open_sweep(space, tmp_path / keep), tmp_path / keep / "checkpoints"
        finals = run_to_the_end(sweep, CheckpointRetention(sweep, CheckpointFolder(folder), keep=keep), folder)
        assert [len(seeds) for seeds in finals.values()] == [3] * len(space.cells)
        best = {max(seeds, key=seeds.get) for seeds in finals.values()}
        every = {trial_id for seeds in finals.values() for trial_id in seeds}
        expected = {"all": every, "best": best, "none": set()}
        assert {path.name for path in folder.iterdir()} == expected[keep]
        sweep._ledger.close()
        for later in KEEPS:
            continued, copy = open_sweep(space, tmp_path / keep), tmp_path / keep / later
            shutil.copytree(folder, copy)
            (copy / "unknown").mkdir()
            CheckpointRetention(continued, CheckpointFolder(copy), keep=later).tidy()
            assert {path.name for path in copy.iterdir()} == expected[keep] & expected[later]
            continued._ledger.close()


def test_running_trials_keep_their_checkpoints_whatever_is_kept_of_finals(tmp_path):
    sweep, folder = open_sweep(make_space(tasks=("t",)), tmp_path), tmp_path / "checkpoints"
    running, ended = sweep.next_trial(), sweep.next_trial()
    for trial in (running, ended):
        (folder / trial.id).mkdir(parents=True)
    sweep.fail(ended.id, "out of memory")
    keeper = CheckpointRetention(sweep, CheckpointFolder(folder), keep="none")
    keeper.trial_ended(ended.id)
    keeper.tidy()
    assert [path.name for path in folder.iterdir()] == [running.id]
