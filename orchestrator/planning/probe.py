"""Times a few training steps where no sweep has timed an epoch, so that a plan of a first sweep is in hours.

One process per device, as in a sweep, trains small samples of the tasks (`trainables/worker/timing.py`). Models and data are
downloaded if need be, as at the start of a sweep. The measurements are written to the output folder, where the forecast finds
them.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from orchestrator.execution.cluster import WORKER_VARIABLES, count_cores, device_name, environment
from orchestrator.execution.concurrency import most_trials, trials_per_device
from orchestrator.planning.plan import Plan
from orchestrator.planning.sweep_inputs import SweepInputs, load_tasks
from orchestrator.planning.throughput import Probed, Setting, measured, setting_of, write_probed
from orchestrator.planning.token_counts import TokenCount, count_texts
from orchestrator.run_options import RunOptions
from search_spaces.environment import unless_set
from search_spaces.language import Cell, Choice, Dimension, Scalar
from trainables.backbone.models import Model, resolve, title
from trainables.tasks.task_data import Loaded
from trainables.tasks.tokens import prepare, summarise

log = logging.getLogger(__name__)

# Steps of a timed epoch: on a GPU they are short.
STEPS, GPU_STEPS = 3, 16
# A timed trial has at least so many epochs, of which only the first few are trained.
EPOCHS = 20
# Seconds after which only what is needed for any estimate at all is still timed.
LIMIT = 60.0
# At most this many processes: their memory is not known here.
MOST_PROCESSES = 8
# Tasks whose examples differ less than by this factor in length count as equally fast per token.
SAME_LENGTH = 2.0
# Seconds of evaluation as a fraction of those of training, per token: one forward pass instead of a forward and a backward one.
EVALUATION = 1 / 3


@dataclass(frozen=True, kw_only=True)
class Sample:
    """The small data set of one (model, task) that is trained to time it, and the size of the real one.

    tokens: the sample's tokens file; mean: its tokens per example. validation: validation examples per training example.
    """

    loaded: Loaded
    tokens: Path
    mean: float
    count: TokenCount
    validation: float


def probe(plan: Plan, options: RunOptions) -> list[str]:
    """Time what no sweep in `options.out` has timed, and write it there. Returns a sentence for each that could not be timed.

    Raises ValueError with an address of a cluster; MissingModel or MissingData if a model or task is not available.
    """
    if options.address:
        raise ValueError("--probe times this machine, not the cluster at --address; leave one of them out")
    models = {name: resolve(name) for name in plan.space.models}
    tasks = load_tasks(plan, options)
    with tempfile.TemporaryDirectory(prefix="probe-") as folder:
        samples = _samples(plan, options, models, tasks, Path(folder))
        lengths = [sample.count.mean for sample in samples.values()]
        per_device = options.trials_per_device or trials_per_device(plan.space, lengths, options.fewest_gpus)
        known = measured(options.out)
        cells = {setting: cell for setting, cell in _settings(plan, options, per_device) if setting not in known}
        chosen = _chosen(cells, samples)
        jobs = [
            {"needed": needed, "trials": _trials(plan, cells[setting], samples, models, per_device)}
            for setting, needed in chosen.items()
        ]
        answers = _run(
            jobs, options, 1 if options.gpus else min(count_cores(), most_trials(plan.space), MOST_PROCESSES)
        )
    seconds, failures = {}, []
    for setting, job, answer in zip(chosen, jobs, answers, strict=True):
        if isinstance(answer, str):
            failures.append(f"{setting.method} on {title(setting.model)} could not be timed: {answer}")
        elif answer:
            trials: Any = job["trials"]
            batch = trials[0]["trial"]["batch_size"]
            seconds[setting] = _epoch_seconds(answer, samples[setting.model, setting.task], batch, per_device)
    tokens = {s.texts: samples[s.model, s.task].count for s, _ in _settings(plan, options, per_device)}
    write_probed(options.out, Probed(seconds=seconds, tokens=tokens))
    return failures


def _samples(
    plan: Plan, options: RunOptions, models: Mapping[str, Model], tasks: Mapping[str, Loaded], folder: Path
) -> dict[tuple[str, str], Sample]:
    """Return a sample of each (model, task), large enough for the largest batch that is timed."""
    recipe = plan.space.recipe
    batch = max(int(_middle(plan.space.values_of(entry)["batch_size"])) for entry in plan.space.methods)
    number = batch * (GPU_STEPS if options.gpus else STEPS)
    found = {}
    for task, loaded in tasks.items():
        share = len(loaded.validation) / len(loaded.train)
        small = _small(loaded, number, max(1, round(share * number)))
        for name, model in models.items():
            path = prepare(small, str(model.path), recipe.max_length, folder)
            mean = summarise(path).mean_length
            count = count_texts(loaded.train, len(loaded.train), model.path, recipe.max_length)
            found[name, task] = Sample(loaded=small, tokens=path, mean=mean, count=count, validation=share)
    return found


def _small(loaded: Loaded, train: int, validation: int) -> Loaded:
    """Return the task with at most so many examples, evenly spaced over each split."""
    parts = {}
    for name, most in (("train", train), ("validation", validation), ("test", 1)):
        texts = getattr(loaded, name)
        step = max(1, len(texts) // most)
        parts[name] = texts.take(tuple(range(0, len(texts), step))[:most])
    return replace(loaded, **parts, repeats=(), fingerprint=f"{loaded.fingerprint[:8]}{train:08d}")


def _settings(plan: Plan, options: RunOptions, per_device: int) -> Iterable[tuple[Setting, Cell]]:
    for cell in plan.space.cells:
        entry = plan.space.entry(cell.method)
        device = device_name(options.gpus)
        yield setting_of(cell, entry.name, entry.settings, plan.space.recipe, device, per_device), cell


def _chosen(settings: Iterable[Setting], samples: Mapping[tuple[str, str], Sample]) -> dict[Setting, bool]:
    """Return the settings to time: each method on each model, once for tasks of about the same length.

    The value says whether it is the first of its `kind`, without which other methods have no estimate. These come first.
    """
    chosen: dict[Setting, bool] = {}
    lengths: dict[tuple[str, str], list[float]] = {}
    kinds: set[tuple[object, ...]] = set()
    for setting in settings:
        length = samples[setting.model, setting.task].mean
        timed = lengths.setdefault((setting.model, setting.method), [])
        if all(max(length, other) >= SAME_LENGTH * min(length, other) for other in timed):
            timed.append(length)
            chosen[setting] = setting.kind not in kinds
            kinds.add(setting.kind)
    return dict(sorted(chosen.items(), key=lambda item: not item[1]))


def _trials(
    plan: Plan,
    cell: Cell,
    samples: Mapping[tuple[str, str], Sample],
    models: Mapping[str, Model],
    per_device: int,
) -> list[dict[str, Any]]:
    """Return the jobs of `per_device` trials of a cell, with a value from the middle of each searched dimension."""
    sample = samples[cell.model, cell.task]
    inputs = SweepInputs(space=plan.space, models=models, tasks={cell.task: sample.loaded}, tokens={})
    middle = {name: _middle(value) for name, value in plan.space.dimensions_of(plan.space.entry(cell.method)).items()}
    jobs = []
    for seed in range(per_device):
        trial = inputs.trial(cell, middle, seed, "search")
        epochs = max(EPOCHS, trial.recipe.epochs)
        trial = replace(trial, recipe=replace(trial.recipe, epochs=epochs, patience=epochs))
        jobs.append({"trial": trial.to_json(), "source": inputs.sources()[cell.model], "data": str(sample.tokens)})
    return jobs


def _middle(value: Scalar | Dimension) -> Scalar:
    if isinstance(value, Choice):
        return value.values[len(value.values) // 2]
    return value if isinstance(value, Scalar) else (value.low + value.high) / 2


def _run(jobs: list[dict[str, Any]], options: RunOptions, processes: int) -> list[dict[str, float] | str]:
    """Train the jobs in so many processes at once. Returns for each the mean timing, {} if it was skipped, or the failure."""
    request = json.dumps({"gpu": options.gpus > 0, "seconds": LIMIT, "jobs": jobs})
    variables = {**environment(), **unless_set(WORKER_VARIABLES)}
    if not options.gpus:
        variables["OMP_NUM_THREADS"] = "1"
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "trainables.worker.timing"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=None if os.environ.get("ORCHESTRATOR_DEBUG") else subprocess.DEVNULL,
            text=True,
            env=variables,
        )
        for _ in range(processes)
    ]
    try:
        for process in started:
            assert process.stdin is not None
            with suppress(BrokenPipeError):  # it has died
                process.stdin.write(request)
                process.stdin.close()
        # Libraries may write to standard output, too.
        answers = [[json.loads(line) for line in process.stdout or () if line.startswith("{")] for process in started]
    finally:
        for process in started:
            process.kill()
            process.wait()
    return [
        _mean([each[i] if i < len(each) else {"error": "its process died"} for each in answers])
        for i in range(len(jobs))
    ]


def _mean(answers: list[dict[str, Any]]) -> dict[str, float] | str:
    errors = [answer["error"] for answer in answers if "error" in answer]
    if errors:
        return str(errors[0])
    timed = [answer for answer in answers if answer]
    return {name: fmean(answer[name] for answer in timed) for name in timed[0]} if timed else {}


def _epoch_seconds(timing: Mapping[str, float], sample: Sample, batch: int, per_device: int) -> float:
    """Return the seconds of an epoch of the real task, from the timing of a few steps on its sample."""
    per_token = timing["step_seconds"] / (min(batch, len(sample.loaded.train)) * sample.mean)
    training = per_token * sample.count.tokens
    evaluated = per_token * sample.mean * len(sample.loaded.validation) * EVALUATION
    overhead = max(0.0, timing["end_seconds"] - evaluated)
    # If the device held fewer trials than the plan counts with, the others wait for it.
    return (training * (1 + EVALUATION * sample.validation) + overhead) * per_device / timing["trials"]
