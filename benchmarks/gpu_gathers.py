"""Ways to pad the tokens of packed rows for attention, and back: what the moves of one layer cost, forward and backward.

Legend: N tokens of all rows, B examples, L tokens of the longest, H heads, D width, w = D/H.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.gpu_first_sections import ms_of
from benchmarks.gpu_setting import Bench, Shape, release
from trainables.backbone.attention import Move
from trainables.backbone.packing import Rows, pack

# [N, D] -> [B H, L, w], and back.
There = Callable[[Tensor], Tensor]
Back = Callable[[Tensor], Tensor]


def a2_gathers(bench: Bench) -> Iterator[dict[str, Any]]:
    """Padding queries, keys and values for attention and taking the outputs back, forward and backward, one layer."""
    heads, D = bench.scale.encoder.heads, bench.scale.encoder.width
    for shape in (bench.scale.shapes[0], bench.scale.shapes[-1]):
        for K in (4, 64) if bench.cuda else (2,):
            rows = packed(bench, K, shape)
            for dtype in (torch.bfloat16, torch.float32):
                N = rows.input_ids.shape[1]
                inputs = [torch.randn(N, D, device=bench.device, dtype=dtype, requires_grad=True) for _ in range(3)]
                same = {"tokens": N, "examples": rows.batch, "longest": rows.keys.shape[-1], "type": str(dtype)[6:]}
                reference = None
                for name, (there, back) in variants(rows, heads, D).items():

                    def moves(there: There = there, back: Back = back, inputs: list[Tensor] = inputs) -> list[Tensor]:
                        q, k, v = map(there, inputs)
                        out = back(v)
                        kept = [q.detach(), k.detach(), out.detach()]
                        return [*kept, *torch.autograd.grad([q, k, out], inputs, kept)]

                    found = moves()
                    reference = reference or found
                    equal = all(torch.equal(a, b) for a, b in zip(found, reference, strict=True))
                    ms, _ = ms_of(bench, moves, 10)
                    yield {**same, "moves": name, "ms": ms, "equal to the first": equal}
                del inputs
                release()


def packed(bench: Bench, K: int, shape: Shape) -> Rows:
    split, size = bench.data(shape, steps=K).train, shape[0]
    batches = [(split, np.arange(k * size, (k + 1) * size)) for k in range(K)]
    return pack(batches, bench.scale.encoder.heads, bench.device)


def variants(rows: Rows, H: int, D: int) -> dict[str, tuple[There, Back]]:
    """Pairs of functions by name. All give the same tensors."""
    B, L, w = rows.batch, rows.keys.shape[-1], D // H
    places = rows.places.flatten()  # [B L]: the token of each place
    N = rows.input_ids.shape[1]
    own = rows.collect.view(N, H)[:, 0]  # [N]: place of each token in [B, H, L]
    where = own // (H * L) * L + own % L  # the same in [B, L]
    idle, padding = rows.idle.view(-1, H)[:, 0] // H, (~rows.keys.flatten()).nonzero()[:, 0]
    small = [x.int() for x in (rows.spread, rows.collect, rows.idle, rows.padding)]

    def split_heads(x: Tensor) -> Tensor:
        return x.view(B, L, H, w).transpose(1, 2).reshape(B * H, L, w)

    def join_heads(x: Tensor) -> Tensor:
        return x.view(B, H, L, w).transpose(1, 2).reshape(B * L, D)

    def by_head(spread: Tensor, collect: Tensor, idle: Tensor, padding: Tensor) -> tuple[There, Back]:
        return (
            lambda x: Move.apply(x.reshape(-1, w), spread, collect, idle).view(B * H, L, w),
            lambda x: Move.apply(x.reshape(-1, w), collect, spread, padding).view(N, D),
        )

    found = {
        "gather of heads, as in the engine on a CPU": by_head(rows.spread, rows.collect, rows.idle, rows.padding),
        "the same, 32-bit indices": by_head(small[0], small[1], rows.idle, rows.padding),
        "gather of tokens, then heads split by a copy": (
            lambda x: split_heads(Move.apply(x, places, where, idle)),
            lambda x: Move.apply(join_heads(x), where, places, padding),
        ),
    }
    if N == B * L and not len(padding):
        found["equal lengths: no gather, heads split by a copy"] = (split_heads, join_heads)
    return found
