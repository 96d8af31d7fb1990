"""Estimates from the peaks of earlier steps if a step fits into device memory. Knows no trials, only numbers of tokens."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import torch

# Fraction added to every estimate: rows differ in length, and allocators fragment.
SAFETY_MARGIN = 0.15


class Memory(Protocol):
    """The memory of a device, in bytes."""

    def used(self) -> int:
        """Allocated now."""

    def total(self) -> int:
        """Available to this process, allocated memory included."""

    def reset_peak(self) -> None:
        """Let `peak` forget all earlier steps."""

    def peak(self) -> int:
        """Most that was allocated since `reset_peak`."""


class CudaMemory:
    """The memory of the current CUDA device that this process may use."""

    def used(self) -> int:
        return torch.cuda.memory_allocated()

    def total(self) -> int:
        free, _ = torch.cuda.mem_get_info()
        return free + torch.cuda.memory_reserved()

    def reset_peak(self) -> None:
        torch.cuda.reset_peak_memory_stats()

    def peak(self) -> int:
        return torch.cuda.max_memory_allocated()


class MemoryEstimator:
    """Predicts a step's memory from its tokens: those of its trials' mean batches, added up."""

    def __init__(self, memory: Memory):
        self._memory = memory
        # Peak bytes per token observed so far.
        self.bytes_per_token = 0.0

    @contextmanager
    def observe_step(self, num_tokens: float) -> Iterator[None]:
        """Context around a step of `num_tokens`: measures its peak. A step that raises changes no estimate."""
        before = self._memory.used()
        self._memory.reset_peak()
        yield
        self.bytes_per_token = max(self.bytes_per_token, (self._memory.peak() - before) / num_tokens)

    def fits(self, num_tokens: float) -> bool:
        """True if a step of `num_tokens` is expected to fit. Before the first measured step always true."""
        need = self.bytes_per_token * num_tokens * (1 + SAFETY_MARGIN)
        return need <= self._memory.total() - self._memory.used()
