"""Estimates whether a training step fits into device memory, from its number of tokens and the peaks of earlier steps."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import torch

# Fraction added to every estimate, because batches differ in length and allocators lose memory to fragmentation.
SAFETY_MARGIN = 0.15


class Memory(Protocol):
    """Measures the memory of a device. All values are in bytes."""

    def used(self) -> int:
        """Return the memory that is allocated now."""

    def total(self) -> int:
        """Return the memory that this process can use, allocated memory included."""

    def reset_peak(self) -> None:
        """Start a new measurement of the peak."""

    def peak(self) -> int:
        """Return the largest memory that was allocated at one time since `reset_peak`."""


class CudaMemory:
    """The memory of the current CUDA device, as PyTorch's allocator and the driver report it."""

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
    """Predicts the memory of a step from its number of tokens: the sum, over its trials, of the tokens of a mean mini-batch."""

    def __init__(self, memory: Memory):
        self._memory = memory
        # Largest peak of a step so far, beyond what was allocated before it, in bytes per token.
        self.bytes_per_token = 0.0

    @contextmanager
    def observe_step(self, num_tokens: float) -> Iterator[None]:
        """Context that measures the peak of a step of `num_tokens` tokens. If the step raises, the estimate is unchanged."""
        before = self._memory.used()
        self._memory.reset_peak()
        yield
        self.bytes_per_token = max(self.bytes_per_token, (self._memory.peak() - before) / num_tokens)

    def fits(self, num_tokens: float, held: int = 0, model_bytes: int = 0) -> bool:
        """Return whether a step of `num_tokens` tokens is expected to fit; True as long as no step has been measured.

        `held`: the part of the allocated memory that will be given back before that step. `model_bytes`: size of a copy of a
        model that will be loaded before it.
        """
        need = (self.bytes_per_token * num_tokens + model_bytes) * (1 + SAFETY_MARGIN)
        return need <= self._memory.total() - self._memory.used() + held


def ran_out_of_memory(error: Exception) -> bool:
    """Return whether an operation failed for lack of device memory. Libraries of CUDA say so only in their message."""
    return isinstance(error, torch.OutOfMemoryError) or any(
        text in str(error) for text in ("CUDA error: out of memory", "STATUS_ALLOC_FAILED")
    )
