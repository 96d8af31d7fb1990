"""Finds device workers whose processes hang: they answer no longer, or they answer but their training stands still.

A worker pings the driver from a thread of its own and says how many training steps and batches of evaluations it has done. That
count is watched instead of the time of epochs, which depends on batch sizes, on how many trials share the device, and on what is
evaluated: an epoch may take long, a step may not. Ray is not used here; `tune_runner.py` ends the processes that are found.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

PING_SECONDS = 30.0
# Three pings: one may be late on a busy machine.
SILENT_SECONDS = 90.0
# Longest time without a step. Steps and batches take less than seconds on a GPU and rarely minutes on a core; what comes between
# them (a checkpoint is sent, a further model is loaded) is allowed minutes on a slow disk or network.
STILL_SECONDS = 600.0
# The same until the first step of a worker that had nothing to train, and the longest time without a ping before it first asks
# for trials: libraries, whose import keeps the ping's thread waiting, and a large model may come from a slow disk.
LOADING_SECONDS = 3600.0
# Where steps are slow, this many times the longest time between two steps so far is allowed.
STILL_TIMES = 5
# The controller runs about twice per second. If it has not run for so long, it hung itself or its machine slept; such a time
# counts for no worker.
PAUSE_SECONDS = 10.0


@dataclass
class _Watched:
    """One process. `heard`: time of its last call; `moved`: time of its last step as far as known, or when it had none to do."""

    process: str
    where: str
    heard: float
    moved: float
    activity: int = 0
    loading: bool = True
    asked: bool = False  # for trials


class Watchdog:
    """The times of the workers' last calls and steps."""

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self._clock = clock
        self._watched: dict[str, _Watched] = {}  # by worker
        self._ended: set[str] = set()  # processes, whose calls may still arrive
        self._longest = 0.0  # time between two steps so far
        self._looked = clock()

    def note(self, call: Mapping[str, Any]) -> bool:
        """Note a worker's call for orders or its ping: "worker", "process", "node" and "device"; "activity" in a ping.

        Returns whether its process is watched, which it is not any more after `forget`.
        """
        name, process, now = call["worker"], call["process"], self._clock()
        if process in self._ended:
            return False
        if name in self._watched and self._watched[name].process != process:
            self.forget(name)
        watched = self._watched.setdefault(
            name, _Watched(process, f"node {call['node']}, {call['device']}", heard=now, moved=now)
        )
        watched.heard, watched.asked = now, watched.asked or "activity" not in call
        activity = call.get("activity", watched.activity)
        if activity != watched.activity:
            self._longest = max(self._longest, now - watched.moved)
            watched.activity, watched.moved, watched.loading = activity, now, False
        return True

    def forget(self, worker: str) -> None:
        """Watch the present process of a worker no longer, because it ended or is told to."""
        watched = self._watched.pop(worker, None)
        if watched:
            self._ended.add(watched.process)

    def find_hanging(self, idle: Collection[str]) -> dict[str, str]:
        """Return, by worker, where it is and why its process has to be ended. `idle`: workers that have nothing to train.

        A worker that is still there afterwards is returned again after as long a time.
        """
        now = self._clock()
        pause, self._looked = now - self._looked, now
        found = {}
        for name, watched in self._watched.items():
            if pause > PAUSE_SECONDS:
                watched.heard = min(now, watched.heard + pause)
                watched.moved = min(now, watched.moved + pause)
            if name in idle:
                watched.moved, watched.loading = now, True
            allowed = max(LOADING_SECONDS if watched.loading else STILL_SECONDS, STILL_TIMES * self._longest)
            silent = SILENT_SECONDS if watched.asked else LOADING_SECONDS
            if now - watched.heard > silent:
                reason = f"its worker did not answer for {silent:.0f} s"
            elif now - watched.moved > allowed:
                reason = f"its worker did no step of training or evaluation for {allowed / 60:.0f} min"
            else:
                continue
            watched.heard = watched.moved = now
            found[name] = f"{watched.where}: {reason}"
        return found
