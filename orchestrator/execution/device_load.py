"""How busy this machine's devices are, as one sentence for the progress display."""

from __future__ import annotations

import os
import re
import subprocess
import threading
import time
from collections.abc import Sequence
from pathlib import Path

# Seconds between two questions to nvidia-smi, which takes up to a second to answer, and after which it is not waited for.
QUERY_SECONDS = 5.0
QUERY = ("nvidia-smi", "--query-gpu=utilization.gpu,memory.used,memory.total", "--format=csv,noheader,nounits")


class DeviceLoad:
    """The load of this machine. With `gpus`, a thread asks nvidia-smi; nodes of a joined cluster are not asked."""

    def __init__(self, gpus: int = 0, cores: int = 1):
        self._gpus, self._cores = gpus, cores
        self._gpu_text = ""
        if gpus:
            threading.Thread(target=self._ask, name="device-load", daemon=True).start()

    def text(self) -> str:
        """Return the load, such as "2 CPU cores; memory 3.1 of 7.7 GiB"; "" if nothing is known."""
        cores = "" if self._gpus else f"{self._cores} CPU core{'s' * (self._cores != 1)}"
        return "; ".join(filter(None, [self._gpu_text, cores, memory_text(meminfo())]))

    def _ask(self) -> None:
        while True:
            try:
                done = subprocess.run([*QUERY, *_visible()], capture_output=True, text=True, timeout=QUERY_SECONDS)
            except (OSError, subprocess.SubprocessError):
                return  # no nvidia-smi here, or one that hangs
            self._gpu_text = gpu_text(done.stdout.splitlines()) if done.returncode == 0 else ""
            time.sleep(QUERY_SECONDS)


def gpu_text(lines: Sequence[str]) -> str:
    """Return the load of GPUs: the range over all of them, and the memory of the fullest.

    Each of the lines, from nvidia-smi, has three numbers: percent busy, MiB used, MiB in all.
    """
    found = [[int(number) for number in re.findall(r"\d+", line)] for line in lines]
    found = [numbers for numbers in found if len(numbers) == 3]
    if not found:
        return ""
    busy = sorted({numbers[0] for numbers in found})
    share = f"{busy[0]}" if len(busy) == 1 else f"{busy[0]} to {busy[-1]}"
    fullest = max(found, key=lambda numbers: numbers[1] / max(1, numbers[2]))
    most = "at most " * (len(found) > 1)
    name = "GPU" if len(found) == 1 else f"{len(found)} GPUs"
    return f"{name} {share} % busy, memory {most}{fullest[1] / 1024:.1f} of {fullest[2] / 1024:.1f} GiB"


def memory_text(text: str) -> str:
    """Return the used and the total memory of the machine from the text of /proc/meminfo; "" if it lacks them."""
    kib = memory_kib(text)
    if not {"MemTotal", "MemAvailable"} <= kib.keys():
        return ""
    return f"main memory {(kib['MemTotal'] - kib['MemAvailable']) / 2**20:.1f} of {kib['MemTotal'] / 2**20:.1f} GiB"


def memory_kib(text: str) -> dict[str, int]:
    """Return the sizes in KiB that the text of /proc/meminfo has, by name."""
    return {name: int(number) for name, number in re.findall(r"^(\w+): +(\d+) kB$", text, re.MULTILINE)}


def _visible() -> list[str]:
    """Return the arguments that restrict nvidia-smi to the GPUs that this process may use."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return [] if visible is None else ["-i", visible]


def meminfo() -> str:
    """Return the text of /proc/meminfo, "" where there is none."""
    try:
        return Path("/proc/meminfo").read_text(encoding="ascii", errors="replace")
    except OSError:  # not Linux
        return ""
