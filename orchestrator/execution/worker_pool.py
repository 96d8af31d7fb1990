"""The device workers of a sweep: which trials each of them trains now, and which one gets the next trial.

A trial goes to the device with the fewest trials; among equals, to one that has its model loaded. A trial whose worker died
`DEATHS_SHARED` times is trained alone on a device, so that a trial that crashes its process cannot crash others again. While it
waits, the device with the fewest trials gets no more, one device at a time.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from search_spaces.records import Trial

# Number of deaths of a trial's workers after which it is trained alone, and after which it fails.
DEATHS_SHARED, DEATHS = 2, 4
# Seconds after the first worker's start in which the others are expected.
OPENING_SECONDS = 60.0


@dataclass
class Worker:
    """A device worker. `process`: id of its process. `unfit`: why its machine cannot train; "" if it can.

    `leaving`: it is to end, so that another sweep gets its device.
    """

    process: str
    node: str
    device: str
    unfit: str = ""
    leaving: bool = False
    trials: dict[str, Trial] = field(default_factory=dict)
    # Most trials that its device's memory holds, as long as none of them ends; None: not known.
    most: int | None = None
    model: str = ""


class WorkerPool:
    """The workers whose processes run. `devices` are expected at the start, each for at most `per_device` trials at once."""

    def __init__(self, devices: int, per_device: int, clock: Callable[[], float] = time.monotonic):
        self._devices, self._per_device, self._clock = devices, per_device, clock
        self._workers: dict[str, Worker] = {}
        # Workers with an unanswered call for orders, in order of their calls.
        self._waiting: dict[str, None] = {}
        self._deaths: Counter[str] = Counter()
        self._unfit_nodes: dict[str, str] = {}
        self._began: float | None = None
        # The worker that gets no trials until it is empty, and then one that is trained alone.
        self._reserved: str | None = None

    def greet(self, call: Mapping[str, Any]) -> list[Trial]:
        """Take a worker's call for orders. Return the trials of its former process, which this one has replaced.

        `call`: "worker", "process", "node" and "device"; "unfit" if the worker's machine cannot train.
        """
        name, process = call["worker"], call["process"]
        if self._began is None:
            self._began = self._clock()
        known, lost = self._workers.get(name), []
        if known is None or known.process != process:
            lost = self.lose(name)
            unfit = call.get("unfit", "") or self._unfit_nodes.get(call["node"], "")
            self._workers[name] = Worker(process, call["node"], call["device"], unfit)
        self._waiting[name] = None
        return lost

    def lose(self, name: str, *, counted: bool = True) -> list[Trial]:
        """Forget a worker whose process ended, and return its trials. `counted`: this may be the fault of one of them."""
        self._waiting.pop(name, None)
        worker = self._workers.pop(name, None)
        trials = [*worker.trials.values()] if worker else []
        if counted:
            self._deaths.update(trial.id for trial in trials)
        return trials

    def keep(self, most: int) -> None:
        """Have workers end until at most so many stay: first those that cannot train, then those with the fewest trials."""
        staying = [name for name, worker in self._workers.items() if not worker.leaving]
        staying.sort(key=lambda name: (not self._workers[name].unfit, len(self._workers[name].trials)))
        for name in staying[: max(0, len(staying) - most)]:
            self._workers[name].leaving = True

    def is_leaving(self, trial_id: str) -> bool:
        """Return whether the worker that trains the trial is to end."""
        worker = self._holder(trial_id)
        return worker is not None and worker.leaving

    def end(self, name: str) -> None:
        """Forget a worker that has ended in order, if it had nothing to train."""
        if name in self._workers and not self._workers[name].trials:
            self.lose(name)

    @property
    def slots(self) -> int:
        """The number of trials that can be trained at once, by the workers that are expected, or more if more have come."""
        return max(self._devices, len(self)) * self._per_device

    def __len__(self) -> int:
        """Return the number of workers that stay."""
        return sum(not worker.leaving for worker in self._workers.values())

    def knows(self, name: str) -> bool:
        """Return whether this worker's process has asked for orders and has not been lost since."""
        return name in self._workers

    def died_too_often(self, trial_id: str) -> bool:
        return self._deaths[trial_id] >= DEATHS

    def has(self, trial_id: str, process: str) -> bool:
        """Return whether the worker with this process trains the trial now."""
        worker = self._holder(trial_id)
        return worker is not None and worker.process == process

    def release(self, trial_id: str, *, crowded: bool = False) -> None:
        """Note that a trial is on its device no more. `crowded`: because its memory holds no more than the others."""
        worker = self._holder(trial_id)
        if worker:
            del worker.trials[trial_id]
            worker.most = max(1, len(worker.trials)) if crowded else None

    def set_aside(self, node: str, reason: str) -> None:
        """Give no more trials to the workers of a node."""
        self._unfit_nodes[node] = reason
        for worker in self._workers.values():
            if worker.node == node:
                worker.unfit = reason

    def node_of(self, process: str) -> str:
        """Return the node of the worker with this process, "" if it is gone."""
        return next((worker.node for worker in self._workers.values() if worker.process == process), "")

    def fit_nodes(self) -> set[str]:
        return {worker.node for worker in self._workers.values() if not worker.unfit}

    def why_unfit(self) -> str:
        """Return why no machine can train; "" if one can, or is still expected."""
        reasons = [worker.unfit for worker in self._workers.values()]
        return reasons[0] if reasons and all(reasons) and not self.expects_more else ""

    @property
    def expects_more(self) -> bool:
        """Whether workers are expected that have not asked for orders yet."""
        return len(self._workers) < self._devices and self._opening

    def has_room(self, wanted: int) -> bool:
        """Return whether a waiting worker could take a trial, if `wanted` trials could run now in all."""
        return any(name != self._reserved and self._room(name, wanted) > 0 for name in self._waiting)

    def place(self, trial: Trial, wanted: int) -> str | None:
        """Assign a trial to a worker and return the worker's name; None if no waiting worker can take it now.

        A trial that is to be trained alone then reserves a worker, unless another trial has.
        """
        alone = self._deaths[trial.id] >= DEATHS_SHARED
        names = [
            name
            for name in self._waiting
            if self._room(name, wanted) > 0 and not (self._workers[name].trials if alone else name == self._reserved)
        ]
        if not names:
            if alone and self._reserved is None:
                fit = {name: each for name, each in self._workers.items() if not (each.unfit or each.leaving)}
                sizes = {name: len(worker.trials) for name, worker in fit.items()}
                self._reserved = min(sizes, key=lambda name: sizes[name], default=None)
            return None
        model = trial.cell.model
        chosen = min(
            names, key=lambda name: (len(self._workers[name].trials), self._workers[name].model not in ("", model))
        )
        self._workers[chosen].trials[trial.id] = trial
        self._workers[chosen].model = model
        return chosen

    def clear_reservation(self) -> None:
        """Reserve no worker, until a trial that is to be trained alone cannot be placed again."""
        self._reserved = None

    def answered(self, name: str) -> None:
        """Note that a worker's call for orders is answered."""
        self._waiting.pop(name, None)

    @property
    def idle(self) -> list[str]:
        """The workers that wait for orders and train nothing."""
        return [name for name in self._waiting if not self._workers[name].trials]

    @property
    def left(self) -> list[str]:
        """The workers that wait for orders, are to end and train nothing any more."""
        return [name for name in self.idle if self._workers[name].leaving]

    @property
    def running(self) -> int:
        """The number of trials that are on devices now."""
        return sum(len(worker.trials) for worker in self._workers.values())

    @property
    def _opening(self) -> bool:
        return self._began is None or self._clock() < self._began + OPENING_SECONDS

    def _room(self, name: str, wanted: int) -> int:
        """Return how many more trials a worker can take."""
        worker = self._workers[name]
        if (
            worker.unfit
            or worker.leaving
            or (self._deaths and any(self._deaths[each] >= DEATHS_SHARED for each in worker.trials))
        ):
            return 0
        devices = max(1, len(self), self._devices if self._opening else 0)
        most = min(self._per_device, math.ceil(wanted / devices))
        return min(most, worker.most or most) - len(worker.trials)

    def _holder(self, trial_id: str) -> Worker | None:
        return next((worker for worker in self._workers.values() if trial_id in worker.trials), None)
