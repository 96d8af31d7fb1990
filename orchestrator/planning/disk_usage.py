"""What trials keep on disk, by formula: checkpoints as `trainables/worker/checkpoint.py` writes them. Never imports torch.

Legend: P numbers in a trial's row, of which some may be pruned or frozen; its file holds whole rows.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from trainables.methods.backbone_weights import LAYER, POOLER, WeightMethod
from trainables.methods.base import Method
from trainables.methods.spec import Parameter, Shape

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
    return sum(math.prod(p.shape) for p in _parameters(method, shape)) + shape.head(outputs, method.head_reads)


def _parameters(method: Method, shape: Shape) -> Iterator[Parameter]:
    if isinstance(method, WeightMethod):
        for name, size in _encoder(shape):
            yield from method.tensors(name, size, shape).values()
    yield from (parameter for _, parameter in method.declared_parameters(shape))


def _encoder(shape: Shape) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names and sizes of the encoder's tensors; of the embeddings' three only the sum is known, and right."""
    d, f = shape.width, shape.ffn
    rows = (shape.embeddings - 2 * d) // d
    for kind, size in (("word", rows - 2), ("position", 1), ("token_type", 1)):
        yield f"embeddings.{kind}_embeddings.weight", (size, d)
    yield from (("embeddings.LayerNorm.weight", (d,)), ("embeddings.LayerNorm.bias", (d,)))
    maps = [(f"attention.self.{name}", d, d) for name in ("query", "key", "value")]
    maps += [("attention.output.dense", d, d), ("intermediate.dense", f, d), ("output.dense", d, f)]
    for layer in range(shape.layers):
        for name, out, into in maps:
            yield f"{LAYER}{layer}.{name}.weight", (out, into)
            yield f"{LAYER}{layer}.{name}.bias", (out,)
        for place in ("attention.output", "output"):
            for part in ("weight", "bias"):
                yield f"{LAYER}{layer}.{place}.LayerNorm.{part}", (d,)
    if shape.pooler:
        yield from ((f"{POOLER}dense.weight", (d, d)), (f"{POOLER}dense.bias", (d,)))
