"""Runs a command and adds up what its whole tree of processes computes, by name.

Ray's processes end in ways that no parent waits for, so that the kernel's own sums miss them: the tree is looked at twice a
second instead, and what a process had used when it was last seen counts. What lives for less than that is missed.
"""

from __future__ import annotations

import subprocess
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil

PERIOD = 0.5  # seconds


@dataclass(frozen=True, kw_only=True)
class Usage:
    """Wall-clock start and end in seconds since the epoch, CPU seconds by name, the sum at each look, and what it printed."""

    start: float
    end: float
    cpu: Mapping[str, float]
    looks: Sequence[tuple[float, float]]
    output: str

    def cpu_between(self, start: float, end: float) -> float:
        """CPU seconds of the whole tree between two moments."""
        times, sums = zip(*self.looks, strict=True)
        before, after = np.interp([start, end], times, sums)
        return float(after - before)


def run(command: Sequence[str], environment: Mapping[str, str], log: Path) -> Usage:
    """Run the command to its end; raises RuntimeError with the end of its log when it fails."""
    seen: dict[psutil.Process, tuple[str, float]] = {}
    looks: list[tuple[float, float]] = []
    output, start = log.with_suffix(".out"), time.time()
    with log.open("wb") as errors, output.open("wb") as printed:
        process = subprocess.Popen(command, env=dict(environment), stdout=printed, stderr=errors)
        root = psutil.Process(process.pid)
        while process.poll() is None:
            _look(root, seen)
            looks.append((time.time(), sum(seconds for _, seconds in seen.values())))
            with suppress(subprocess.TimeoutExpired):
                process.wait(PERIOD)
        end = time.time()
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}:\n{log.read_text()[-3000:]}")
    cpu: Counter[str] = Counter()
    for name, seconds in seen.values():
        cpu[name] += seconds
    printed_text = output.read_text(encoding="utf-8")
    return Usage(start=start, end=end, cpu=dict(cpu.most_common()), looks=looks, output=printed_text)


def _look(root: psutil.Process, seen: dict[psutil.Process, tuple[str, float]]) -> None:
    with suppress(psutil.Error):
        for process in [root, *root.children(recursive=True)]:
            seen.setdefault(process, ("", 0.0))
    for process, (name, _) in seen.items():
        with suppress(psutil.Error):  # it has ended: its last figures stay
            times = process.cpu_times()
            now = "driver" if process == root else label(process.cmdline())
            seen[process] = (name if now in ("", "ray::IDLE") and name else now, times.user + times.system)


def label(words: Sequence[str]) -> str:
    """A short name for a command: Ray's title, the module or script that Python runs, or the program."""
    title = words[0] if words else ""
    if title.startswith("ray"):
        return title.split(".")[0].split(" ")[0]
    if "-m" in words[:-1]:
        return words[list(words).index("-m") + 1]
    script = next((word for word in words[1:] if word.endswith(".py")), title)
    return Path(script).name
