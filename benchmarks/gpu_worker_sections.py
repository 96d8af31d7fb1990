"""What `benchmarks.gpu_worker` runs: whole trials on the `DeviceWorker` of the product, driven as a sweep drives it, without Ray.

The worker trains in a thread of its own, as in a sweep. Trials write real checkpoints into a temporary folder.
"""

from __future__ import annotations

import math
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from benchmarks import gpu_learning
from benchmarks.gpu_ab_sections import NoGraphs
from benchmarks.gpu_sections import GIB, label
from benchmarks.gpu_setting import Bench, Shape, release, set_precision
from search_spaces.language import Precision, Recipe
from search_spaces.records import Trial
from trainables.tasks.task_data import TaskData
from trainables.training.captured_steps import CapturedSteps
from trainables.worker import device_worker
from trainables.worker.device_worker import DeviceWorker, Job, OutOfDeviceMemory
from trainables.worker.memory import CudaMemory, MemoryEstimator

Rows = Iterator[dict[str, Any]]
# W1: method, settings, learning rate. One of them trains backbone weights and has an engine of its own.
MIXED: tuple[tuple[str, dict[str, Any], float], ...] = (
    ("adapter", {"r": 16}, 2e-3),
    ("lora", {"r": 8}, 5e-3),
    ("linear_probe", {}, 1e-2),
    ("adapter", {"r": 16}, 1e-3),
    ("bitfit", {}, 5e-3),
    ("prefix", {}, 5e-3),
    ("lora", {"r": 8}, 2e-3),
    ("full", {}, 2e-4),
    ("ia3", {}, 1e-2),
    ("parallel", {"r": 16}, 2e-3),
    ("adapter", {"r": 16}, 4e-3),
    ("adalora", {"r": 8}, 5e-3),
)
# W2: memory that is left free, and later on, while the trials train.
FREE, LATER = 8 * GIB, 1.5 * GIB


@dataclass(kw_only=True)
class Run:
    """What one run of trials gave. curves: per trial, by id, the losses of its epochs; scores: its last test scores."""

    seconds: float = 0.0
    curves: dict[str, list[float]] = field(default_factory=dict)
    scores: dict[str, float] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    most: int = 0
    waited: int = 0
    again: int = 0
    captured: list[CapturedSteps] = field(default_factory=list)

    def replayed(self) -> str:
        replays, captures = (sum(getattr(c, name) for c in self.captured) for name in ("replays", "captures"))
        return f"{replays} steps, {captures} graphs"


def run(
    bench: Bench,
    jobs: Sequence[Job],
    graphs: bool,
    *,
    watched: bool = True,
    every: int = 0,
    during: Callable[[int], None] = lambda step: None,
) -> Run:
    """Train all jobs to their end on one device worker. A job that finds no memory is tried again when a trial has left.

    watched: admit by estimated memory. every: steps between two joins; 0: all join at once. during: called before each step.
    """
    found = Run()

    def captured(device: torch.device) -> CapturedSteps | None:
        if not graphs:
            return None
        found.captured.append(CapturedSteps() if bench.cuda else CapturedSteps(NoGraphs))
        return found.captured[-1]

    memory = MemoryEstimator(CudaMemory()) if bench.cuda and watched else None
    worker = DeviceWorker(bench.device, 1, memory, captured)
    waiting, steps, blocked = list(jobs), 0, False

    def train() -> None:
        nonlocal steps, blocked
        while waiting or worker.residents:
            while waiting and not blocked and (not every or steps % every == 0 or not worker.residents):
                blocked = not _enter(worker, waiting, found)
                if every:
                    break
            found.most = max(found.most, len(worker.residents))
            during(steps)
            worker.step()
            steps += 1
            blocked = not _collect(worker, jobs, waiting, found) and blocked

    start = bench.clock()
    errors: list[BaseException] = []

    def guarded() -> None:
        try:
            train()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=guarded)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    found.seconds = bench.clock() - start
    return found


def _enter(worker: DeviceWorker, waiting: list[Job], found: Run) -> bool:
    try:
        worker.add_trial(waiting[0])
    except (OutOfDeviceMemory, torch.OutOfMemoryError):
        if not worker.residents:
            raise
        found.waited += 1
        return False
    worker.request_epoch(waiting[0].trial.id)
    found.curves.setdefault(waiting[0].trial.id, [])
    del waiting[0]
    return True


def _collect(worker: DeviceWorker, jobs: Sequence[Job], waiting: list[Job], found: Run) -> bool:
    """Take reports as the driver does, and failures as the actor does. Returns whether a trial has left."""
    left = False
    for trial_id, error in list(worker.failures.items()):
        worker.failures.pop(trial_id)
        left = True
        if isinstance(error, torch.OutOfMemoryError) and worker.residents:  # crowded out: the actor has it enter again
            waiting.extend(job for job in jobs if job.trial.id == trial_id)
            found.curves[trial_id], found.again = [], found.again + 1
        else:
            found.failed[trial_id] = f"{type(error).__name__}: {str(error)[:200]}"
    for trial_id, resident in list(worker.residents.items()):
        if resident.has_report:
            report = resident.next_report()
            found.curves[trial_id].append(report.progress.loss if report.progress.loss is not None else math.nan)
            if report.outcome is None:
                worker.request_epoch(trial_id)
                continue
            if report.test:
                found.scores[trial_id] = report.test.metrics["accuracy"]
            worker.remove_trial(trial_id)
            left = True
    return left


def gaps(one: Run, two: Run) -> dict[str, Any]:
    """How far the same trials are apart in two runs."""
    pairs = [(a, b) for trial in one.curves for a, b in zip(one.curves[trial], two.curves[trial], strict=False)]
    scores = [abs(one.scores[trial] - two.scores[trial]) for trial in one.scores if trial in two.scores]
    return {
        "epochs": len(pairs),
        "max |d loss|": f"{max(abs(a - b) for a, b in pairs):.1e}",
        "max |d test score|, points": max(scores) if scores else "not measured",
    }


def w1_trials(bench: Bench, folder: Path | None) -> Rows:
    """Twelve trials of eleven settings on a real task, joining one after the other, ending after two to four epochs."""
    if folder is None:
        yield {"precision": "not measured: no folder was given"}
        return
    model, data = gpu_learning.read(folder)
    few = MIXED if bench.cuda else MIXED[:3]
    for precision in ("fp32", "bf16") if bench.cuda else ("fp32",):
        set_precision(precision)
        kinds: dict[str, Run] = {}
        for name, graphs in (("eager", False), ("captured", True)):
            with tempfile.TemporaryDirectory() as checkpoints:
                jobs = [
                    real_job(i, precision, model, data, folder, Path(checkpoints), bench.cuda) for i in range(len(few))
                ]
                kinds[name] = run(bench, jobs, graphs, every=7 if bench.cuda else 2)
            found = kinds[name]
            yield {
                "precision": precision,
                "steps": name,
                "s": found.seconds,
                "most residents": found.most,
                "replayed": found.replayed(),
                "failed": str(found.failed or "none"),
                "beside eager": str(gaps(kinds["eager"], found)),
                "test scores": ", ".join(
                    f"{job.trial.method} {found.scores.get(job.trial.id, math.nan):.2f}" for job in jobs
                ),
            }
    set_precision(bench.precision)


def real_job(
    i: int, precision: Precision, model: Any, data: TaskData, folder: Path, checkpoints: Path, whole: bool
) -> Job:
    method, settings, lr = MIXED[i]
    epochs = 2 + i % 3 if whole else 1
    recipe = replace(gpu_learning.RECIPE, epochs=epochs, patience=epochs, precision=precision)
    trial = gpu_learning.trial_of("linear_probe", 1, model, data, recipe)
    trial = replace(trial, cell=replace(trial.cell, method=method), method=method, settings=settings, lr=lr, seed=1 + i)
    return Job(trial=trial, source=str(folder), data=folder / gpu_learning.TOKENS, folder=checkpoints / trial.id)


def random_jobs(bench: Bench, number: int, shape: Shape, epochs: int, checkpoints: Path) -> list[Job]:
    """Jobs of adapters on random tokens. Their model and data are found by `given`."""
    source = str(bench.model.path)
    recipe = Recipe(epochs=epochs, patience=epochs, precision="bf16" if bench.cuda else "fp32")
    made: list[Trial] = [
        replace(trial, weights=bench.model.fingerprint, recipe=recipe) for trial in bench.trials(number, shape)
    ]
    return [Job(trial=t, source=source, data=Path("none"), folder=checkpoints / t.id) for t in made]


def given(bench: Bench, data: TaskData) -> Any:
    """The worker takes this model, which has no tokenizer, and this data, which is in no file."""
    return mock.patch.multiple(device_worker, _model=lambda source: bench.model, read_data=lambda path: data)


def w2_memory(bench: Bench) -> Rows:
    """Forty trials where 8 GiB are free: admitted by estimate; then admitted without one; then memory goes during the run."""
    shape, number, steps = bench.scale.shapes[0], 40 if bench.cuda else 4, 12 if bench.cuda else 3
    data, kept = bench.data(shape, steps=steps), list[torch.Tensor]()

    def take(free: float) -> None:
        """Allocate what is beyond so many free bytes."""
        if bench.cuda:
            room = torch.cuda.mem_get_info()[0] + torch.cuda.memory_reserved() - torch.cuda.memory_allocated()
            torch.cuda.empty_cache()
            if room > free:
                kept.append(torch.empty(int(room - free), dtype=torch.uint8, device=bench.device))

    def shrink(step: int) -> None:
        """Memory of graphs in use cannot be taken: only what is free beyond it."""
        if step == 20 and bench.cuda:
            free = torch.cuda.mem_get_info()[0]
            kept.append(torch.empty(max(1, int(free - LATER)), dtype=torch.uint8, device=bench.device))

    arms: list[tuple[str, bool, dict[str, Any]]] = [
        ("all memory, eager", False, {}),
        ("all memory, captured", True, {}),
        ("8 GiB, eager, one joins each step", False, {"every": 1}),
        ("8 GiB, captured, one joins each second step", True, {"every": 2}),
        ("8 GiB, captured, all join, no estimate", True, {"watched": False}),
        ("8 GiB, captured, memory goes at step 20", True, {"every": 2, "during": shrink}),
    ]
    first: Run | None = None
    for name, graphs, options in arms:
        release()
        if "8 GiB" in name:
            take(FREE)
        try:
            with tempfile.TemporaryDirectory() as checkpoints, given(bench, data):
                found = run(bench, random_jobs(bench, number, shape, 2, Path(checkpoints)), graphs, **options)
        finally:
            kept.clear()
        first = first or found
        yield {
            "memory": name,
            "trials": len(found.curves),
            "lost": str(found.failed or "none"),
            "s": found.seconds,
            "most residents": found.most,
            "refused for memory": found.waited,
            "entered again": found.again,
            "replayed": found.replayed(),
            "last reason not to capture": "; ".join(c.refused[:90] for c in found.captured) or "none",
            **gaps(first, found),
        }


def w3_epochs(bench: Bench) -> Rows:
    """Whole trials of two epochs with evaluation and checkpoints, all at once, lengths like CoLA's: eager against captured."""
    shape = bench.scale.shapes[-1]
    steps, epochs = (60, 2) if bench.cuda else (3, 2)
    data = bench.data(shape, steps=steps)
    data = replace(data, validation=replace(data.train)) if bench.cuda else data
    for K in (1, 4, 16, 64) if bench.cuda else (2,):
        found = {}
        for name, graphs in (("eager", False), ("captured", True)):
            release()
            with tempfile.TemporaryDirectory() as checkpoints, given(bench, data):
                found[name] = run(bench, random_jobs(bench, K, shape, epochs, Path(checkpoints)), graphs)
        eager, captured = found["eager"], found["captured"]
        yield {
            "shape": label(shape),
            "K": K,
            "steps of a trial": steps * epochs,
            "eager s": eager.seconds,
            "captured s": captured.seconds,
            "captured faster": eager.seconds / captured.seconds,
            "captured, trials a minute": 60 * K / captured.seconds,
            "replayed": captured.replayed(),
            **gaps(eager, captured),
        }
