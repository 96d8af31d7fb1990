"""Trains the trials assigned to one device: one engine per shared backbone, and one per trial that needs its own backbone.

Trials of the library peft have an engine of their own kind, each with a copy of the model.

    worker = DeviceWorker(device)
    worker.add_trial(job)
    worker.request_epoch(trial_id)
    while not worker.residents[trial_id].has_report: worker.step()

It uses neither Ray nor threads; `session.py` and `tune_trainable.py` add them. A resident is a trial that is on the device now.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import torch

from search_spaces.language import Precision, Recipe
from search_spaces.peft_rows import PEFT
from search_spaces.quantization import Nf4
from search_spaces.records import Trial
from trainables.backbone.backbone import Backbone
from trainables.backbone.models import Model, resolve
from trainables.methods.lookup import method_type
from trainables.methods.peft_row import installed_peft
from trainables.tasks.task_data import TaskData
from trainables.tasks.tokens import read
from trainables.training.captured_steps import CapturedSteps, captured_on
from trainables.training.engine import Engine
from trainables.training.peak_memory import start_peak_memory
from trainables.worker.checkpoint_store import CheckpointStore
from trainables.worker.memory import CudaMemory, MemoryEstimator, ran_out_of_memory
from trainables.worker.trial_runner import TrialEngine, TrialRunner, mean_tokens
from trainables.worker.worker_environment import WorkerEnvironmentError, check_environment

log = logging.getLogger(__name__)
T = TypeVar("T")
# Bytes of a value of a model that a trial has for itself.
FLOAT = 4


@dataclass(frozen=True, kw_only=True)
class Job:
    """A trial with the paths of its model, data and checkpoints on this node."""

    trial: Trial
    # Model directory or Hub id.
    source: str
    # The tokens file of the task.
    data: Path
    # The trial's checkpoint folder.
    folder: Path
    # The driver's code and package versions. Empty if the trial trains in the process that made the job.
    environment: Mapping[str, str] = field(default_factory=dict)
    # Where checkpoints are kept, if other nodes do not see the folder.
    store: CheckpointStore | None = None

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> Job:
        trial = Trial.from_json(record["trial"])
        return cls(
            trial=trial,
            source=record["source"],
            data=Path(record["data"]),
            folder=Path(record["checkpoints"]) / trial.id,
            environment=record.get("environment", {}),
        )

    def check(self) -> Model:
        """Return the trial's model on this machine.

        Raises WorkerEnvironmentError if code, packages or the model's files are not the driver's.
        """
        check_environment(self.environment)
        if self.trial.method == PEFT and f"{PEFT} {installed_peft()}" not in self.trial.plugin.split(", "):
            raise WorkerEnvironmentError(
                f"this machine has peft {installed_peft() or 'not installed'}, and the trial needs {self.trial.plugin}"
            )
        try:
            model = _model(self.source)
        except ValueError as error:
            raise WorkerEnvironmentError(str(error)) from None
        if model.fingerprint != self.trial.weights:
            raise WorkerEnvironmentError(
                f"model {self.source!r} has other files here ({model.fingerprint}) than the sweep's ({self.trial.weights})"
            )
        return model


class DeviceLost(BaseException):
    """Raised after an error of the device that leaves this process unable to use it. Another process has to go on.

    It is no Exception, so that it is taken for no error of a trial.
    """


class OutOfDeviceMemory(Exception):
    """Raised if the device has not enough memory for one more trial in addition to its residents."""


class DeviceWorker:
    """The resident trials of one device, trained together step by step."""

    def __init__(
        self,
        device: torch.device,
        epochs_ahead: int = 0,
        memory: MemoryEstimator | None = None,
        captured: Callable[[torch.device], CapturedSteps | None] = captured_on,
    ):
        """`epochs_ahead`: number of epochs that a trial may train before their request. `memory`: None admits every trial.

        `captured`: returns what captures the steps of a new engine, or None.
        """
        self._device, self._epochs_ahead, self._memory, self._captured = device, epochs_ahead, memory, captured
        self.residents: dict[str, TrialRunner] = {}
        # By trial id, until `remove_trial`: the exception because of which a trial was removed.
        self.failures: dict[str, Exception] = {}
        # Engines with a shared backbone, by model and precision.
        self._shared: dict[tuple[str, Precision, Nf4 | None], Engine] = {}
        # Largest number of trials per step, for engines in which a step with more trials has failed.
        self._max_active: dict[TrialEngine, int] = {}
        self._num_steps = 0

    def add_trial(self, job: Job) -> None:
        """Add a trial to the residents, from its checkpoint if there is one. It replaces a resident with the same id.

        Raises ValueError if the method refuses the settings, WorkerEnvironmentError if this machine is not fit for the trial (see
        `Job.check`), OutOfDeviceMemory if the estimated memory of a step with one more trial exceeds the device's.
        """
        self.remove_trial(job.trial.id)
        model = job.check()
        data = read_data(job.data)
        num_tokens = mean_tokens(job.trial, data)
        total = sum(r.num_tokens for r in self.residents.values()) + num_tokens
        held = sum(engine.graph_bytes for engine in self._engines())
        own = 0 if method_type(job.trial.method).shares_backbone else FLOAT * model.total
        if self._memory and self.residents and not self._memory.fits(total, held, own):
            raise OutOfDeviceMemory(f"no memory for {total:.0f} tokens a step beside {len(self.residents)} trials")

        start_peak_memory(self._device, idle=not self.residents)

        def add() -> None:
            engine = self._engine(job, model)
            self.residents[job.trial.id] = TrialRunner(job.trial, engine, data, job.folder, num_tokens, job.store)

        self._with_memory_of_graphs(add)

    def remove_trial(self, trial_id: str) -> None:
        """Remove a resident and its failure. Does nothing if there is no trial with this id."""
        self.failures.pop(trial_id, None)
        resident = self.residents.pop(trial_id, None)
        if resident:
            resident.engine.remove_trial(trial_id)

    def request_epoch(self, trial_id: str) -> None:
        """Request the report of one more epoch of this trial."""
        self.residents[trial_id].num_requested += 1

    @property
    def has_work(self) -> bool:
        """True if any resident has an epoch to train, so that `step` would do something."""
        return any(r.may_train(self._epochs_ahead) for r in self.residents.values())

    def step(self) -> None:
        """Do one training step of the next engine, in turn, that has trials to train.

        An error ends only the trial that caused it, which is removed; the exception is then in `failures`. Raises DeviceLost
        after an error of CUDA other than a lack of memory: all later calls would fail, and with them every resident.
        """
        waiting: dict[TrialEngine, list[TrialRunner]] = {}
        for resident in self.residents.values():
            if resident.may_train(self._epochs_ahead):
                waiting.setdefault(resident.engine, []).append(resident)
        if not waiting:
            return
        self._num_steps += 1
        engine = list(waiting)[self._num_steps % len(waiting)]
        active = waiting[engine][: self._max_active.get(engine, len(waiting[engine]))]

        def train() -> None:
            engine.set_active([r.trial.id for r in active])
            with self._memory.observe_step(sum(r.num_tokens for r in active)) if self._memory else nullcontext():
                engine.step()

        try:
            self._with_memory_of_graphs(train)
        except Exception as error:  # of any type: `_shrink` finds the trial that caused it
            self._shrink(engine, active, error)
        for resident in active:
            try:
                self._with_memory_of_graphs(resident.finish_epoch)
            except Exception as error:
                self._evict(resident, error)

    def _with_memory_of_graphs(self, call: Callable[[], T]) -> T:
        """Return `call()`. If memory runs out while CUDA graphs of any engine hold some, drop them and call once more.

        Raises DeviceLost after an error of the device that is no lack of memory.
        """
        try:
            return call()
        except Exception as error:
            if isinstance(error, torch.AcceleratorError) and not ran_out_of_memory(error):
                raise DeviceLost(f"the device failed: {error}") from error
            engines = self._engines()
            if not ran_out_of_memory(error) or not any(engine.graph_bytes for engine in engines):
                raise
            log.info("memory ran out (%s); trying again without CUDA graphs", error)
        for engine in engines:
            engine.zero_grad()
        return call()

    def _shrink(self, engine: TrialEngine, active: list[TrialRunner], error: Exception) -> None:
        """After a failed step, halve the number of trials per step: it saves memory, and finally isolates the failing trial.

        If the step had a single trial, remove that trial.
        """
        engine.zero_grad()
        if len(active) > 1:
            self._max_active[engine] = len(active) // 2
            log.warning("a step of %d trials failed (%s); trying %d", len(active), error, self._max_active[engine])
            return
        self._evict(active[0], error)

    def _evict(self, resident: TrialRunner, error: Exception) -> None:
        """Remove a resident and enter `error` in `failures`. Its engine may try steps with more trials again."""
        self.remove_trial(resident.trial.id)
        self._max_active.pop(resident.engine, None)
        self.failures[resident.trial.id] = error

    def _engines(self) -> set[TrialEngine]:
        return {*self._shared.values(), *(resident.engine for resident in self.residents.values())}

    def _engine(self, job: Job, model: Model) -> TrialEngine:
        """Return the shared engine of a trial's model and precision, or a new engine if its method cannot share a backbone."""
        recipe = job.trial.recipe
        if job.trial.method == PEFT:
            # Imported here, because peft is not installed everywhere and takes seconds to load.
            from trainables.peft_training.peft_engine import PeftEngine

            return PeftEngine(model, self._device)
        if not method_type(job.trial.method).shares_backbone:
            return Engine(self._backbone(model, recipe))
        key = (job.source, recipe.precision, recipe.nf4)
        if key not in self._shared:
            # Engines without residents are deleted, so that at most one unused backbone stays in memory.
            for other, engine in list(self._shared.items()):
                if not engine.residents:
                    del self._shared[other]
            backbone = self._backbone(model, recipe)
            self._shared[key] = Engine(backbone, self._captured(self._device))
        return self._shared[key]

    def _backbone(self, model: Model, recipe: Recipe) -> Backbone:
        backbone = Backbone.load(model, self._device, recipe.precision, recipe.nf4)
        log.info("loaded %s: %.1f MiB in %s", model.name, backbone.num_bytes / 2**20, recipe.precision)
        return backbone


class InProcessTrial:
    """A trial that trains in this process, alone on its device worker, one epoch per call of `next_report`."""

    def __init__(self, worker: DeviceWorker, job: dict[str, Any]):
        self._worker, self._job = worker, Job.from_json(job)
        worker.add_trial(self._job)

    def next_report(self) -> dict[str, Any]:
        """Train to the end of the next epoch and return its report with the trial's id. Raises the error that ended the trial."""
        worker, trial_id = self._worker, self._job.trial.id
        worker.request_epoch(trial_id)
        while not worker.residents[trial_id].has_report:
            worker.step()
            if trial_id in worker.failures:
                raise worker.failures[trial_id]
        return {"id": trial_id, **worker.residents[trial_id].next_report().to_json()}

    def remove(self) -> None:
        self._worker.remove_trial(self._job.trial.id)


def open_device_worker(gpu: bool, epochs_ahead: int = 0) -> DeviceWorker:
    """Return a device worker on the first visible GPU if `gpu` is true and there is one, else on one CPU core."""
    gpu = gpu and torch.cuda.is_available()
    if not gpu:
        torch.set_num_threads(1)  # one core per worker; more threads would compete, and round sums differently
    return DeviceWorker(
        torch.device("cuda" if gpu else "cpu"), epochs_ahead, MemoryEstimator(CudaMemory()) if gpu else None
    )


@lru_cache(maxsize=4)
def _model(source: str) -> Model:
    return resolve(source)


@lru_cache(maxsize=8)
def read_data(path: Path) -> TaskData:
    """Return the content of a tokens file; the last eight files stay in memory."""
    return read(path)
