"""Attention over packed rows, plugged in through transformers' attention interface.

Inside it the examples are spread to [B, H, L, D/H]; every padded place repeats a token of its own example, never of another
one, so that a slot full of NaN cannot reach its neighbours through a product with zero. Trials whose method adds keys and
values of its own have them in further columns, hidden from everybody else's examples.

Legend: N tokens of all rows, B examples of all rows, L longest example, l most keys that a method adds, H heads, D width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AttentionInterface

from trainables.packing import Rows

ATTENTION = "packed"


class Move(torch.autograd.Function):
    """Rows `there` of x; the gradient comes back by the opposite map, and is zero for the rows `unread`.

    As a gather in both directions it is several times faster than the scatter that differentiating an index would give.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, there: Tensor, back: Tensor, unread: Tensor) -> Tensor:
        ctx.save_for_backward(back, unread)
        return x.index_select(0, there)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        back, unread = ctx.saved_tensors
        return grad.index_select(0, back).index_fill_(0, unread, 0), None, None, None


@dataclass(frozen=True, kw_only=True)
class Prefix:
    """Keys and values [B, l, D] beside those of the tokens; `keys_there` [B, l]: False where an example has fewer than l."""

    keys: Tensor
    values: Tensor
    keys_there: Tensor


class Attending(Protocol):
    """What a pass contributes to attention."""

    # Scores and probabilities as tensors of their own: where dropout acts on them, or a second derivative is asked for.
    explicit: bool

    def probability_factors(self, layer: int) -> Tensor | None:
        """Dropout factors [B, H, L, L + l] of the attention probabilities."""

    def prefix(self, layer: int) -> Prefix | None: ...

    def context(self, layer: int, query: Tensor, h: Tensor) -> Tensor:
        """What methods make of the heads' joined outputs: h [1, N, D], query [1, N, D] -> [1, N, D]."""


def packed_attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float,
    rows: Rows,
    running: Attending,
    **_: Any,
) -> tuple[Tensor, None]:
    """query, key, value: [1, H, N, D/H] -> [1, N, H, D/H]."""
    H, N, width = query.shape[1:]
    B, L = rows.batch, rows.keys.shape[-1]

    def spread(x: Tensor) -> Tensor:
        heads = x.transpose(1, 2).reshape(N * H, width)
        return Move.apply(heads, rows.spread, rows.collect, rows.idle).view(B * H, L, width)

    q, k, v = spread(query), spread(key), spread(value)
    there, prefix = rows.keys, running.prefix(module.layer_idx)
    if prefix is not None:
        k, v = (torch.cat([x, _heads(more, H)], 1) for x, more in ((k, prefix.keys), (v, prefix.values)))
        there = torch.cat([there, prefix.keys_there[:, None, None]], -1)
    if running.explicit:
        hide = rows.hide if prefix is None else _hide(there, H)
        probabilities = torch.baddbmm(hide.to(q.dtype), q, k.transpose(1, 2), alpha=scaling).softmax(-1)
        factors = running.probability_factors(module.layer_idx)
        out = (probabilities if factors is None else probabilities * factors.view(B * H, L, -1)) @ v
    else:
        q, k, v = (x.view(B, H, -1, width) for x in (q, k, v))
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=there, scale=scaling)
    out = Move.apply(out.reshape(B * H * L, width), rows.collect, rows.spread, rows.padding).view(1, N, H * width)
    return running.context(module.layer_idx, query, out).view(1, N, H, width), None


def _heads(x: Tensor, H: int) -> Tensor:
    """[B, l, D] -> [B H, l, D/H]."""
    return x.unflatten(-1, (H, -1)).transpose(1, 2).flatten(0, 1)


def _hide(there: Tensor, H: int) -> Tensor:
    """[B, 1, 1, L] -> [B H, 1, L]: 0 for keys that are there, else -inf."""
    hide = torch.zeros(there.shape, device=there.device).masked_fill_(~there, float("-inf"))
    return hide.expand(-1, H, -1, -1).flatten(0, 1)


AttentionInterface.register(ATTENTION, packed_attention)
