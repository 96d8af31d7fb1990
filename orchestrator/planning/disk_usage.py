"""The size of trials on disk, by formula: checkpoints as `trainables/worker/checkpoint.py` writes them. Never imports torch.

Legend: P parameters of one trial. Pruned and untrained ones are stored, too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from trainables.methods.base import Method
from trainables.methods.spec import Shape

FLOAT, FLAG = 4, 1  # bytes


@dataclass(frozen=True, kw_only=True)
class DiskUsage:
    """Bytes of the tensors in a checkpoint, with the pruning mask if there is one.

    running: of a trial in training: values, values of the best epoch, Adam's two moments, memories of the method.
    finished: values of the best epoch alone. One such file per cell stays.
    """

    running: int
    finished: int


def checkpoint_sizes(method: Method, shape: Shape, outputs: int) -> DiskUsage:
    """The checkpoint sizes of a trial of this method with a head of `outputs` outputs."""
    P = row_size(method, shape, outputs)
    mask = FLAG * P if method.mask else 0
    return DiskUsage(running=FLOAT * P * (4 + method.memories) + mask, finished=FLOAT * P + mask)


def row_size(method: Method, shape: Shape, outputs: int) -> int:
    """P: the number of parameters of a trial, with the head."""
    declared = sum(math.prod(p.shape) for _, p in method.declared_parameters(shape))
    return declared + shape.head(outputs, method.head_reads)
