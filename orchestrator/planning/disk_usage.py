"""What trials keep on disk, by formula: checkpoints as `trainables/worker/checkpoint.py` writes them. Never imports torch.

Legend: P numbers in a trial's row, of which some may be pruned or frozen; its file holds whole rows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from trainables.methods.base import Method
from trainables.methods.spec import Shape

FLOAT, FLAG = 4, 1  # bytes


@dataclass(frozen=True, kw_only=True)
class DiskUsage:
    """Bytes of tensors: `running`: values, best epoch, Adam's two moments and what else a method remembers; `kept`: the best
    epoch, of the one trial per cell whose file stays; both with the mask, if there is one.
    """

    running: int
    kept: int


def footprint(method: Method, shape: Shape, outputs: int) -> DiskUsage:
    """Of a trial of this method."""
    P = row(method, shape, outputs)
    mask = FLAG * P if method.mask else 0
    return DiskUsage(running=FLOAT * P * (4 + method.memories) + mask, kept=FLOAT * P + mask)


def row(method: Method, shape: Shape, outputs: int) -> int:
    """How many numbers a trial's row has, the head included."""
    declared = sum(math.prod(p.shape) for _, p in method.declared_parameters(shape))
    return declared + shape.head(outputs, method.head_reads)
