"""What trains on one device: an engine per backbone that trials share, and one more for each trial that has to have its own.

    lane = Lane(device)
    lane.enter(job)
    lane.ask(trial_id)
    while not lane.residents[trial_id].ready: lane.turn()

Knows nothing of Ray or threads; `trainables/worker/ray_actors.py` gives it both.
"""

from __future__ import annotations

import logging
from contextlib import nullcontext
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from search_spaces.language import Precision
from search_spaces.records import Trial
from trainables.backbone.backbone import Backbone
from trainables.backbone.models import Model, resolve
from trainables.methods import METHODS
from trainables.tasks.task_data import TaskData
from trainables.tasks.tokens import read
from trainables.training.engine import Engine
from trainables.worker.memory import CudaMemory, MemoryEstimator
from trainables.worker.trial_runner import TrialRunner, mean_tokens

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Job:
    """A trial and where this node finds what it needs: model name or directory, token file, checkpoint folder."""

    trial: Trial
    source: str
    data: Path
    folder: Path

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> Job:
        trial = Trial.from_json(record["trial"])
        folder = Path(record["checkpoints"]) / trial.id
        return cls(trial=trial, source=record["source"], data=Path(record["data"]), folder=folder)


class OutOfDeviceMemory(Exception):
    """The device has no memory for one more trial now; it may have when others have left."""


class DeviceWorker:
    """`ahead`: epochs that a resident may train before anybody has asked for them. `room`: None where memory is not watched."""

    def __init__(self, device: torch.device, ahead: int = 0, room: MemoryEstimator | None = None):
        self._device, self._ahead, self._memory = device, ahead, room
        self.residents: dict[str, TrialRunner] = {}
        # What ended a resident against its will, by trial id, until it leaves.
        self.failures: dict[str, Exception] = {}
        # By model and precision.
        self._shared: dict[tuple[str, Precision], Engine] = {}
        # Most residents of an engine that train at a time, once a step with more has failed.
        self._room: dict[Engine, int] = {}
        self._turn = 0

    def enter(self, job: Job) -> None:
        """Seat a trial, from its checkpoint if there is one; a stale resident of the same trial is replaced.

        Raises ValueError for settings that the method refuses, or a model that is not the sweep's; OutOfDeviceMemory when the
        memory that steps have needed so far does not leave enough for it beside the others.
        """
        self.leave(job.trial.id)
        model = _model(job.source)
        if model.fingerprint != job.trial.weights:
            raise ValueError(
                f"model {job.source!r} on this node has other files ({model.fingerprint}) than the sweep's "
                f"({job.trial.weights})"
            )
        data = read_data(job.data)
        tokens = mean_tokens(job.trial, data)
        together = sum(r.tokens for r in self.residents.values()) + tokens
        if self._memory and self.residents and not self._memory.holds(together):
            raise OutOfDeviceMemory(f"no memory for {together:.0f} tokens a step beside {len(self.residents)} trials")
        engine = self._engine(job, model)
        self.residents[job.trial.id] = TrialRunner(job.trial, engine, data, job.folder, tokens)

    def leave(self, trial_id: str) -> None:
        """Free the trial's place; nothing happens if it has none."""
        self.failures.pop(trial_id, None)
        resident = self.residents.pop(trial_id, None)
        if resident:
            resident.engine.remove_trial(trial_id)

    def ask(self, trial_id: str) -> None:
        """Somebody wants to hear of the trial's next epoch."""
        self.residents[trial_id].asked += 1

    @property
    def busy(self) -> bool:
        """Whether a turn would train anybody."""
        return any(r.wants(self._ahead) for r in self.residents.values())

    def turn(self) -> None:
        """One step of the next engine that has anybody to train. What goes wrong ends the one who did it, not its neighbours."""
        waiting: dict[Engine, list[TrialRunner]] = {}
        for resident in self.residents.values():
            if resident.wants(self._ahead):
                waiting.setdefault(resident.engine, []).append(resident)
        if not waiting:
            return
        self._turn += 1
        engine = list(waiting)[self._turn % len(waiting)]
        active = waiting[engine][: self._room.get(engine, len(waiting[engine]))]
        try:
            engine.set_active([r.trial.id for r in active])
            with self._memory.step(sum(r.tokens for r in active)) if self._memory else nullcontext():
                engine.step()
        except Exception as error:  # whatever it is, its cause is to be found among the residents
            self._shrink(engine, active, error)
        for resident in active:
            try:
                resident.keep_up()
            except Exception as error:
                self._evict(resident, error)

    def _shrink(self, engine: Engine, active: list[TrialRunner], error: Exception) -> None:
        """Try the same step with half of them: for memory, or until the one that cannot be trained is found."""
        engine.zero_grad()
        if len(active) > 1:
            self._room[engine] = len(active) // 2
            log.warning("a step of %d trials failed (%s); trying %d", len(active), error, self._room[engine])
            return
        self._evict(active[0], error)

    def _evict(self, resident: TrialRunner, error: Exception) -> None:
        self.leave(resident.trial.id)
        self._room.pop(resident.engine, None)
        self.failures[resident.trial.id] = error

    def _engine(self, job: Job, model: Model) -> Engine:
        precision = job.trial.recipe.precision
        if not METHODS[job.trial.method].shares_backbone:
            return Engine(Backbone.load(model, self._device, precision))
        key = (job.source, precision)
        if key not in self._shared:
            # One backbone is kept for a later trial; more are not, unless somebody is using them.
            for other, engine in list(self._shared.items()):
                if not engine.residents:
                    del self._shared[other]
            self._shared[key] = Engine(Backbone.load(model, self._device, precision))
        return self._shared[key]


class InProcessTrial:
    """The only resident of a lane, driven by whoever asks for its epochs."""

    def __init__(self, lane: DeviceWorker, job: dict[str, Any]):
        self._lane, self._job = lane, Job.from_json(job)
        lane.enter(self._job)

    def next(self) -> dict[str, Any]:
        """The next epoch's report, with the trial's id."""
        lane, trial_id = self._lane, self._job.trial.id
        lane.ask(trial_id)
        while not lane.residents[trial_id].ready:
            lane.turn()
            if trial_id in lane.failures:
                raise lane.failures[trial_id]
        return {"id": trial_id, **lane.residents[trial_id].take().to_json()}

    def leave(self) -> None:
        self._lane.leave(self._job.trial.id)


def open_device_worker(gpu: bool, ahead: int = 0) -> DeviceWorker:
    """The lane of this process, on the first visible GPU if there is one and `gpu` allows it."""
    gpu = gpu and torch.cuda.is_available()
    if not gpu:
        torch.set_num_threads(1)  # a CPU lane owns one core; more threads would fight, and change the last bits
    return DeviceWorker(torch.device("cuda" if gpu else "cpu"), ahead, MemoryEstimator(CudaMemory()) if gpu else None)


@lru_cache(maxsize=4)
def _model(source: str) -> Model:
    return resolve(source)


@lru_cache(maxsize=8)
def read_data(path: Path) -> TaskData:
    return read(path)
