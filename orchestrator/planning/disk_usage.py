"""Computes the size of the checkpoints that `trainables/worker/checkpoint.py` writes, without importing torch.

Legend: P parameters of one trial: those that its method declares, and the head, without the shared backbone. Pruned ones count,
because they are stored too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from trainables.methods.base import Method
from trainables.methods.spec import Shape

FLOAT, FLAG = 4, 1  # bytes


@dataclass(frozen=True, kw_only=True)
class DiskUsage:
    """Bytes of the tensors in a checkpoint, including the pruning mask if the method has one.

    running: a trial in training stores its parameters, those of the best epoch, Adam's two moments, and the method's `memories`
    (further values per parameter). finished: a final that is kept stores the parameters of its best epoch (--keep).
    """

    running: int
    finished: int


def checkpoint_sizes(method: Method, shape: Shape, outputs: int) -> DiskUsage:
    """Return the checkpoint sizes of a trial of this method with a head of `outputs` outputs."""
    P = row_size(method, shape, outputs)
    mask = FLAG * P if method.mask else 0
    return DiskUsage(running=FLOAT * P * (4 + method.memories) + mask, finished=FLOAT * P + mask)


def peft_checkpoint_sizes(trained: int) -> DiskUsage:
    """Return the checkpoint sizes of a trial of a row of peft that trains so many parameters.

    Running, it is an upper bound: AdaLoRA keeps three further values per parameter.
    """
    return DiskUsage(running=FLOAT * trained * (4 + 3), finished=FLOAT * trained)


def row_size(method: Method, shape: Shape, outputs: int) -> int:
    """Return P, the number of parameters of a trial including the head."""
    declared = sum(math.prod(p.shape) for _, p in method.declared_parameters(shape))
    return declared + shape.head(outputs, method.head_reads)
