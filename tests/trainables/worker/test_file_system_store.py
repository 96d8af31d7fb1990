"""Checkpoints at a place that pyarrow opens: what was cut off is never read, a place that fails later stops no trial."""

import shutil
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from orchestrator.execution.checkpoint_retention import CheckpointRetention
from orchestrator.run_options import KEEPS
from search_spaces.events import CheckpointMeasured
from search_spaces.records import Progress
from tests.fixtures.fakes import Trial, curve, end_of, make_space, open_sweep
from tests.fixtures.trials import make_data, make_trial
from trainables.worker import checkpoint, device_worker
from trainables.worker.checkpoint import Checkpoint
from trainables.worker.checkpoint_store import NotStored
from trainables.worker.device_worker import DeviceWorker, Job
from trainables.worker.file_system_store import PAUSE_SECONDS, FileSystemStore
from trainables.worker.worker_environment import WorkerEnvironmentError

TRIAL = make_trial("lora", r=2)


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def write(folder, epoch, done=False, trial=TRIAL):
    progress = [
        Progress(epoch=e, score=1.0, loss=1.0, best_score=1.0, best_epoch=1, seconds=1.0) for e in range(1, epoch + 1)
    ]
    saved = Checkpoint(epoch=epoch, done=done, progress=progress, tensors={"best": torch.full((250,), float(epoch))})
    checkpoint.write(folder, trial, saved)


def fetched(store, folder):
    store.fetch(TRIAL.id, folder)
    saved = checkpoint.read(folder, TRIAL)
    return saved and saved.epoch


@pytest.fixture(params=["folder", "address"])
def place(request, tmp_path):
    return str(tmp_path / "place") if request.param == "folder" else f"file://{tmp_path}/place"


@pytest.fixture
def writes(tmp_path):
    """A function that lists the folders in which the trial's checkpoint was written."""
    return lambda: sorted((tmp_path / "place" / "sweep" / TRIAL.id).iterdir())


def test_the_last_write_is_read_and_the_ones_before_it_are_deleted(place, tmp_path, writes):
    assert fetched(FileSystemStore(place, "sweep"), tmp_path / "none") is None
    for epoch in (1, 2, 3):
        write(tmp_path / "own", epoch)
        FileSystemStore(place, "sweep").store(TRIAL.id, tmp_path / "own")
    assert [path.name.partition("-")[0] for path in writes()] == ["000003"]
    assert fetched(FileSystemStore(place, "sweep"), tmp_path / "other") == 3
    assert fetched(FileSystemStore(place, "another"), tmp_path / "nothing") is None


CUTS = {
    "tensors": lambda folder: (folder / "state.safetensors").write_bytes(b"\x10"),
    "a block of the tensors": lambda folder: (folder / "state.safetensors").write_bytes(
        (folder / "state.safetensors").read_bytes()[:-8]
    ),
    "no record yet": lambda folder: (folder / "state.json").unlink(),
    "half a record": lambda folder: (folder / "state.json").write_text((folder / "state.json").read_text()[:60]),
    "tensors of another write": lambda folder: save_file({"best": torch.zeros(250)}, folder / "state.safetensors"),
}


@pytest.mark.parametrize("cut", CUTS)
def test_a_write_that_was_cut_off_is_never_read(place, tmp_path, writes, cut, caplog):
    store = FileSystemStore(place, "sweep")
    write(tmp_path / "own", 1)
    store.store(TRIAL.id, tmp_path / "own")
    write(tmp_path / "own", 2)
    newer = writes()[0].with_name("000002-cut")
    shutil.copytree(tmp_path / "own", newer)
    CUTS[cut](newer)
    write(tmp_path / "other", 3)
    assert fetched(store, tmp_path / "other") == 1
    assert "000002-cut is not whole" in caplog.text
    store.store(TRIAL.id, tmp_path / "own")
    assert [path.name.partition("-")[0] for path in writes()] == ["000003"]
    assert fetched(store, tmp_path / "other") == 2


def test_a_machine_is_fit_if_it_reaches_the_place_of_the_driver(place, tmp_path):
    FileSystemStore(place).check()
    store = FileSystemStore(place, "sweep")
    with pytest.raises(
        WorkerEnvironmentError, match=r"--checkpoints .*place: cannot be used .*same place on every node"
    ):
        FileSystemStore(place, "sweep").check()
    store.set_mark()
    store.check()
    assert [path.name for path in (tmp_path / "place").rglob("*")] == ["sweep", "mark"], "probes are deleted"
    (tmp_path / "place" / "sweep" / "mark").write_text("other")
    with pytest.raises(WorkerEnvironmentError, match="it is not the driver's"):
        store.check()


def test_a_place_that_fails_is_left_alone_for_a_while(place, tmp_path):
    clock = Clock()
    store = FileSystemStore(place, "sweep", clock)
    write(tmp_path / "own", 1)
    (tmp_path / "place").write_text("")
    with pytest.raises(NotStored, match="place: cannot be written"):
        store.store(TRIAL.id, tmp_path / "own")
    (tmp_path / "place").unlink()
    with pytest.raises(NotStored, match="place: cannot be written"):
        store.store(TRIAL.id, tmp_path / "own")
    clock.now = PAUSE_SECONDS
    store.store(TRIAL.id, tmp_path / "own")
    assert fetched(store, tmp_path / "other") == 1


def test_a_trial_goes_on_without_its_place_and_says_so(tiny_bert, tmp_path, monkeypatch):
    monkeypatch.setattr(device_worker, "read_data", lambda path: make_data())
    trial = replace(make_trial("lora", r=2), weights=tiny_bert.fingerprint)

    def reports(name, store):
        worker = DeviceWorker(torch.device("cpu"))
        job = Job(trial=trial, source=str(tiny_bert.path), data=tmp_path, folder=tmp_path / name, store=store)
        worker.add_trial(job)
        while trial.id in worker.residents:
            worker.request_epoch(trial.id)
            while not worker.residents[trial.id].has_report:
                worker.step()
            report = worker.residents[trial.id].next_report().to_json()
            del report["progress"]["seconds"], report["progress"]["memory_mib"]
            yield report
            if report["outcome"]:
                return

    undisturbed = list(reports("alone", None))
    place, clock = tmp_path / "place", Clock()
    store = FileSystemStore(str(place), "sweep", clock)
    disturbed = reports("own", store)
    found = [next(disturbed)]
    assert not (tmp_path / "own").exists(), "a copy that is kept elsewhere needs no room here"
    place.rename(tmp_path / "away")
    place.write_text("")
    found.append(next(disturbed))
    assert "its checkpoint was not kept: " in found[1].pop("warning")
    place.unlink()
    (tmp_path / "away").rename(place)
    clock.now = PAUSE_SECONDS
    found += disturbed
    assert found == undisturbed
    again = list(reports("again", FileSystemStore(str(place), "sweep")))
    assert again == undisturbed, "the finished trial's checkpoint is there"


def test_ended_trials_are_measured_and_deleted_there_and_finals_stay(tmp_path):
    space = make_space(tasks=("t",), budget=replace(make_space().budget, final_seeds=3))
    for keep in KEEPS:
        sweep, store = open_sweep(space, tmp_path / keep), FileSystemStore(str(tmp_path / keep / "place"), "sweep")
        events, finals = [], {}
        retention = CheckpointRetention(sweep, store, events.append, sweep._ledger.history.measured, keep)
        while isinstance(trial := sweep.next_trial(), Trial):
            points = curve(trial)
            done = all(sweep.record(trial.id, point) for point in points[:-1])
            write(tmp_path / "own", 1, done, trial)
            store.store(trial.id, tmp_path / "own")
            if done:
                outcome, test = end_of(trial, points[-1])
                sweep.record(trial.id, points[-1], outcome, test)
                if test:
                    finals.setdefault(trial.cell, {})[trial.id] = outcome.best_score
            retention.trial_ended(trial.id)
        retention.tidy()
        store.delete("none")
        store._deletions.shutdown()  # waits for all before
        best = {max(seeds, key=seeds.get) for seeds in finals.values()}
        every = {trial_id for seeds in finals.values() for trial_id in seeds}
        assert set(store.trial_ids()) == {"all": every, "best": best, "none": set()}[keep]
        assert every <= {event.id for event in events}
        assert {event.stored for event in events} == {250}
        assert all(isinstance(event, CheckpointMeasured) for event in events)
        sweep._ledger.close()


def test_no_size_is_taken_of_a_trial_whose_last_write_is_missing(tmp_path):
    store = FileSystemStore(str(tmp_path / "place"), "sweep")
    assert store.size(TRIAL.id) is None
    write(tmp_path / "own", 1)
    store.store(TRIAL.id, tmp_path / "own")
    assert store.size(TRIAL.id) is None, "it was still in training"
    write(tmp_path / "own", 2, done=True)
    store.store(TRIAL.id, tmp_path / "own")
    assert store.size(TRIAL.id) == ((tmp_path / "own" / "state.safetensors").stat().st_size, 250)


def test_a_checkpoint_without_size_does_not_keep_others_from_the_place(tmp_path, writes, monkeypatch):
    store = FileSystemStore(str(tmp_path / "place"), "sweep")
    write(tmp_path / "own", 2, done=True)
    store.store(TRIAL.id, tmp_path / "own")
    with monkeypatch.context() as patch:
        patch.setattr(store, "_folders", lambda name: ["000009-deleted"])
        assert store.size(TRIAL.id) is None, "it was deleted since its folder was listed"
    tensors, record = (writes()[0] / name for name in ("state.safetensors", "state.json"))
    content = tensors.read_bytes()
    tensors.write_bytes(b"damaged")
    with pytest.raises(ValueError, match="header is damaged"):
        store.size(TRIAL.id)
    tensors.write_bytes(content)
    record.unlink()
    assert store.size(TRIAL.id) is None, "its upload was cut off"
    assert store.trial_ids() == [TRIAL.id], "none of this is a failure of the place"
