"""Times training on one device of this machine: `python -m trainables.worker.timing`, for `orchestrator/planning/probe.py`.

Standard input is a JSON object: "gpu" (whether to use one), "seconds" (after these, jobs that are not "needed" are skipped)
and "jobs". The trials of a job are trained for a few epochs of a few steps by the same `DeviceWorker` as in a sweep, without Ray.
For each job a JSON line goes to standard output: a `Timing`, {"error": reason}, or {} if the job was skipped.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

import torch

from search_spaces.redaction import clean_line
from trainables.worker.device_worker import DeviceWorker, Job, OutOfDeviceMemory, open_device_worker

# Epochs are timed until they have taken MIN_SECONDS, or there are MAX_EPOCHS. The first one is left out, unless it is slow.
MIN_SECONDS, MAX_EPOCHS = 1.0, 4
SLOW_SECONDS = 8.0


@dataclass(frozen=True, kw_only=True)
class Timing:
    """trials: how many were trained together, on one device.

    step_seconds: of one of them, while all train. end_seconds: what the end of an epoch takes longer than a step, for the
    evaluation on the validation split and the checkpoint.
    """

    trials: int
    step_seconds: float
    end_seconds: float


def time_training(worker: DeviceWorker, jobs: Sequence[Job]) -> Timing:
    """Train these jobs together, or as many as the device's memory holds. Raises the error that ended a trial."""
    added: list[str] = []
    try:
        for job in jobs:
            try:
                worker.add_trial(job)
            except OutOfDeviceMemory:
                break
            added.append(job.trial.id)
            if len(added) == 1:
                _train_epoch(worker, added)  # the worker estimates memory from the first steps
        return _time(worker, added)
    finally:
        for trial_id in added:
            worker.remove_trial(trial_id)


def _time(worker: DeviceWorker, ids: Sequence[str]) -> Timing:
    begin = time.monotonic()
    plain, last = _train_epoch(worker, ids)
    if time.monotonic() - begin < SLOW_SECONDS:
        plain, last = [], []
        while sum(plain) + sum(last) < MIN_SECONDS and len(last) < MAX_EPOCHS * len(ids):
            more = _train_epoch(worker, ids)
            plain, last = plain + more[0], last + more[1]
    # Each step is one of a single engine: trials with a backbone of their own wait for each other.
    num_engines = len({worker.residents[each].engine for each in ids})
    step = fmean(plain or last)
    return Timing(
        trials=len(ids), step_seconds=num_engines * step, end_seconds=num_engines * max(0.0, fmean(last) - step)
    )


def _train_epoch(worker: DeviceWorker, ids: Sequence[str]) -> tuple[list[float], list[float]]:
    """Train an epoch of each trial. Returns the seconds of steps within an epoch, and of steps that end an epoch."""
    plain: list[float] = []
    last: list[float] = []
    for trial_id in ids:
        worker.request_epoch(trial_id)
    waiting = set(ids)
    while waiting:
        if not worker.has_work:
            raise RuntimeError("its training ended, because its loss was not finite")
        begin = time.monotonic()
        worker.step()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        seconds = time.monotonic() - begin
        for failure in worker.failures.values():
            raise failure
        ended = {each for each in waiting if worker.residents[each].has_report}
        (last if ended else plain).append(seconds)
        for trial_id in ended:
            worker.residents[trial_id].next_report()
        waiting -= ended
    return plain, last


def main() -> None:
    wanted: dict[str, Any] = json.load(sys.stdin)
    end = time.monotonic() + wanted["seconds"]
    worker = open_device_worker(wanted["gpu"])
    with tempfile.TemporaryDirectory(prefix="timing-") as folder:
        for job in wanted["jobs"]:
            answer: dict[str, Any] = {}
            if job["needed"] or time.monotonic() < end:
                try:
                    jobs = [Job.from_json({**each, "checkpoints": folder}) for each in job["trials"]]
                    answer = asdict(time_training(worker, jobs))
                except Exception as error:  # whatever it is, this job has no timing
                    answer = {"error": clean_line(f"{type(error).__name__}: {error}")[:200]}
            sys.stdout.write(json.dumps(answer) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
