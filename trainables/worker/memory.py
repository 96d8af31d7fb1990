"""Whether a device has memory for one more trial, from what steps have been seen to need. Knows no trials, only tokens."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import torch

# Memory left alone beyond what the largest step so far suggests: rows differ in length, and allocators in what they waste.
HEAD_ROOM = 0.15


class Memory(Protocol):
    """A device's memory, in bytes."""

    def used(self) -> int: ...

    def total(self) -> int: ...

    def watch_peak(self) -> None:
        """Forget earlier peaks."""

    def peak(self) -> int: ...


class CudaMemory:
    """Of the current GPU, as far as this process may use it."""

    def used(self) -> int:
        return torch.cuda.memory_allocated()

    def total(self) -> int:
        free, _ = torch.cuda.mem_get_info()
        return free + torch.cuda.memory_reserved()

    def watch_peak(self) -> None:
        torch.cuda.reset_peak_memory_stats()

    def peak(self) -> int:
        return torch.cuda.max_memory_allocated()


class MemoryEstimator:
    """Bytes that a step needs per token of its trials' mean batches: the most seen so far."""

    def __init__(self, memory: Memory):
        self._memory = memory
        self.per_token = 0.0

    @contextmanager
    def step(self, tokens: float) -> Iterator[None]:
        """Around a step of trials whose mean batches add up to so many tokens. A step that fails teaches nothing."""
        before = self._memory.used()
        self._memory.watch_peak()
        yield
        self.per_token = max(self.per_token, (self._memory.peak() - before) / tokens)

    def holds(self, tokens: float) -> bool:
        """Whether a step of so many tokens fits; unknown, hence yes, before the first one."""
        need = self.per_token * tokens * (1 + HEAD_ROOM)
        return need <= self._memory.total() - self._memory.used()
