"""Watches the free space of the driver's disks while a sweep runs, so that the sweep stops before a disk is full."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path

from orchestrator.execution.cluster import Share

MIB = 2**20
# For ledger, tracking store, report and Ray's logs. Less than the 100 MiB with which a sweep may start.
RESERVE = 50 * MIB
SECONDS = 5.0  # between two looks


class DiskWatch:
    """Says when the disk of the checkpoints or of Ray's temporary folder has less space than the sweep needs next.

    That is, besides `RESERVE`, a new checkpoint on each device beside the old one, and the first checkpoint of each running trial
    that has none yet. `checkpoint_bytes`: upper bound of the size of one; 0 if it is not known, or if checkpoints are kept
    elsewhere. `clock` gives seconds.
    """

    def __init__(
        self,
        checkpoints: Path,
        temporary: Path,
        share: Share,
        checkpoint_bytes: int,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._checkpoints, self._temporary, self._share = checkpoints, temporary, share
        self._bytes, self._clock = checkpoint_bytes, clock
        self._due = clock()

    def shortage(self) -> str:
        """Return which disk has too little space, "" if none. Looks at most every `SECONDS`."""
        if self._clock() < self._due:
            return ""
        self._due = self._clock() + SECONDS
        needs = {self._checkpoints.parent: RESERVE + self._next_checkpoints(), self._temporary: RESERVE}
        for folder, needed in needs.items():
            free = shutil.disk_usage(folder).free
            if free < needed:
                return (
                    f"the disk of {folder} has {free // MIB} MiB free, and the sweep needs {needed // MIB} MiB there for "
                    "its next checkpoints and records; free some"
                )
        return ""

    def _next_checkpoints(self) -> int:
        present = len(list(self._checkpoints.iterdir())) if self._checkpoints.is_dir() else 0
        return self._bytes * max(self._share.devices, self._share.slots - present)
