"""How many GPUs a driver can keep busy: its real decisions and ledger, and training in simulated time.

    python -m benchmarks.cluster_simulation [--gpus 8 64 512] [--trials 20000] [--json FILE]

Time passes as on H200 GPUs: a step of K trials of BERT-base's shape takes what was measured (`docs/performance.md`, 8 x 64, CUDA
graphs), between these points on a straight line, and each trial that joins costs its device the time of its graphs. Messages take
no time. The driver's CPU time is measured; MLflow, Ray and the reading of data are left out (`benchmarks/control_plane.py`).
"""

from __future__ import annotations

import heapq
import math
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import measure
from benchmarks.control_plane import EndTimes, NoMailbox
from benchmarks.fake_sweep import make_paths, make_space, make_sweep
from benchmarks.fake_worker import FakeResident
from orchestrator.execution.controller import Controller
from orchestrator.execution.watchdog import Watchdog
from orchestrator.execution.worker_pool import WorkerPool
from search_spaces.records import Trial

RESIDENTS, STEP_MS = (1, 4, 16, 64), (6.15, 10.0, 24.4, 87.8)
JOIN_SECONDS = 0.2
# An epoch of MRPC in batches of 16.
STEPS = 229
CELLS, EPOCHS, PER_DEVICE = 100, 10, 16
# Simulated seconds within which events are handled together, as messages are.
TOGETHER = 0.05


class Device:
    """A GPU with its worker, from one event to the next. `left`: steps until each resident's next report."""

    def __init__(self, name: str):
        self.call = {"worker": name, "process": name, "node": "n", "device": name}
        self.residents: dict[str, FakeResident] = {}
        self.left: dict[str, float] = {}
        self.now = self.busy = self.steps = self.paused_until = 0.0

    @property
    def step_seconds(self) -> float:
        return float(np.interp(len(self.left), RESIDENTS, STEP_MS)) / 1000

    @property
    def next_report(self) -> float:
        """When the next trial reports, if none joins or leaves before; infinite without trials."""
        if not self.left:
            return math.inf
        return max(self.now, self.paused_until) + max(0.0, min(self.left.values())) * self.step_seconds

    def advance(self, now: float) -> list[dict[str, Any]]:
        """Train until `now`. Return the reports of the trials whose epochs have ended."""
        if self.left:
            done = max(0.0, now - max(self.now, self.paused_until)) / self.step_seconds
            self.busy += now - self.now
            self.steps += done * len(self.left)
            self.left = {trial_id: left - done for trial_id, left in self.left.items()}
        self.now = now
        return [self._report(trial_id) for trial_id, left in self.left.items() if left < 1e-6]

    def _report(self, trial_id: str) -> dict[str, Any]:
        self.left[trial_id] += STEPS
        return {"id": trial_id, "process": self.call["process"], **self.residents[trial_id].report_epoch().to_json()}

    def join(self, trial: Trial) -> None:
        self.residents[trial.id], self.left[trial.id] = FakeResident(trial), float(STEPS)
        self.paused_until = max(self.now, self.paused_until) + JOIN_SECONDS

    def leave(self, trial_id: str) -> None:
        del self.residents[trial_id], self.left[trial_id]


def simulate(gpus: int, trials: int, root: Path) -> dict[str, float]:
    """A sweep of so many search trials on so many GPUs."""
    in_flight = max(2, math.ceil(gpus * PER_DEVICE / CELLS))
    space = make_space(math.ceil(trials / CELLS), EPOCHS, in_flight, CELLS)
    sweep = make_sweep(space, root / "sweep")
    now = 0.0
    pool = WorkerPool(gpus, PER_DEVICE, lambda: now)
    paths, ends = make_paths(space, root), EndTimes([], lambda: (0.0, {}))
    controller = Controller(sweep, NoMailbox(), paths, ends, pool, watchdog=Watchdog(lambda: 0.0))
    devices = {f"g{i}": Device(f"g{i}") for i in range(gpus)}
    calls = [device.call for device in devices.values()]
    events: list[tuple[float, str]] = []
    last: dict[str, float] = {}
    reports, cpu = 0, 0.0
    with closing(sweep._ledger):
        while True:
            due = set()
            while events and events[0][0] <= now + 1e-9:
                at, name = heapq.heappop(events)
                if last.get(name) == at:  # no trial has joined or left since it was foreseen
                    due.add(name)
            messages = [message for name in sorted(due) for message in devices[name].advance(now)]
            began = time.process_time()
            orders, verdicts = controller.serve(calls, messages)
            cpu += time.process_time() - began
            reports += len(messages)
            calls, changed = [], due
            for (name, trial_id), goes_on in verdicts.items():
                if not goes_on:
                    devices[name].leave(trial_id)
            for name, order in orders.items():
                if order["close"]:
                    continue
                devices[name].advance(now)
                for job in order["jobs"]:
                    devices[name].join(Trial.from_json(job["trial"]))
                calls.append(devices[name].call)
                changed = changed | {name}
            for name in changed:
                last[name] = (
                    math.ceil(devices[name].next_report / TOGETHER) * TOGETHER if devices[name].left else math.inf
                )
                if devices[name].left:
                    heapq.heappush(events, (last[name], name))
            if not calls:
                if sweep.finished or not events:
                    break
                now = events[0][0]
        assert sweep.finished
    ended = CELLS * (space.budget.trials + 1)  # one final of each cell
    best = PER_DEVICE / float(np.interp(PER_DEVICE, RESIDENTS, STEP_MS)) * 1000
    return {
        "trials": ended,
        "in flight of a cell": in_flight,
        "hours": now / 3600,
        "share of the time in which a GPU has trials": sum(d.busy for d in devices.values()) / (gpus * now),
        "share of the steps that full GPUs would do": sum(d.steps for d in devices.values()) / (gpus * now * best),
        "reports per second": reports / now,
        "driver, CPU ms per trial": 1000 * cpu / ended,
        "driver, share of one core": cpu / now,
    }


def main() -> None:
    parser = measure.parser(__doc__)
    parser.add_argument("--gpus", type=int, nargs="+", default=[8, 64, 512])
    parser.add_argument("--trials", type=int, default=20_000)
    arguments = parser.parse_args()
    flags = measure.conditions(clock="simulated time for training, CPU time of this process for the driver")
    results = {}
    for gpus in arguments.gpus:
        with tempfile.TemporaryDirectory() as folder:
            results[str(gpus)] = simulate(gpus, arguments.trials, Path(folder))
        names: Sequence[str] = list(results[str(gpus)])
        measure.print_table(["GPUs", *names], [[str(gpus), *map(measure.short, results[str(gpus)].values())]])
    measure.write(arguments.json, "cluster_simulation", flags, results)


if __name__ == "__main__":
    main()
