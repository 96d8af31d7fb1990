"""The peak memory of this process while a trial is trained, which every trial reports after an epoch."""

from __future__ import annotations

import ctypes
import re
import resource
import sys
from contextlib import suppress
from pathlib import Path

import torch

# Linux's files about this process: "5" written to the first starts its peak again, which the second has as VmHWM, in KiB.
_CLEAR, _STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")


def start_peak_memory(device: torch.device, *, idle: bool) -> None:
    """Start the peak of this process again, because a trial joins. `idle`: no other trial is trained here.

    The largest value that a trial reports is then the peak from its start on. It still has what the process has not given back to
    the system of the trials that ended before.
    On a GPU nothing is done, since the peak is started again with each step (`trainables/worker/memory.py`). Where the system has
    no such means, the peak stays that since the process began.
    """
    if device.type == "cuda":
        return
    with suppress(OSError, AttributeError):
        if idle:  # the C library keeps what ended trials have freed
            ctypes.CDLL(None).malloc_trim(0)
        _CLEAR.write_text("5")


def peak_memory_mib(device: torch.device) -> float:
    """Peak memory of this process in MiB: allocated on the GPU, or else the resident set on the CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    with suppress(OSError):
        found = re.search(r"^VmHWM:\s+(\d+) kB$", _STATUS.read_text(), re.MULTILINE)
        if found:
            return int(found[1]) / 2**10
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10
