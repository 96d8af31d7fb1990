"""Attention over packed rows, in the place of the model's own.

Inside it the examples are spread to [B, H, L, D/H]; every padded place repeats a token of its own example, never of another
one, so that a slot full of NaN cannot reach its neighbours through a product with zero. Trials whose method adds keys and
values of its own have them in further columns, hidden from everybody else's examples.

Legend: N tokens of all rows, B examples of all rows, L longest example, l most keys that a method adds, H heads, D width.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AttentionInterface

from trainables.backbone.packing import Rows

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
class ExtraKeyValues:
    """Keys and values [B, l, D] beside those of the tokens; `keys_there` [B, l]: False where an example has fewer than l."""

    keys: Tensor
    values: Tensor
    keys_there: Tensor


class Attending(Protocol):
    """What a pass contributes to attention."""

    rows: Rows

    # Scores and probabilities as tensors of their own: where dropout acts on them, or a second derivative is asked for.
    explicit: bool

    def products(self) -> AbstractContextManager[object]:
        """In what precision matrix products are computed that have no frozen weights in them."""

    def probability_factors(self, layer: int) -> Tensor | None:
        """Dropout factors [B, H, L, L + l] of the attention probabilities."""

    def prefix(self, layer: int) -> ExtraKeyValues | None: ...

    def context(self, layer: int, query: Tensor, h: Tensor) -> Tensor:
        """What methods make of the heads' joined outputs: h, query [1, n, D] -> [1, n, D]."""


def attend(running: Attending, layer: int, heads: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """What the heads of a layer return: key, value [1, N, D], query [1, n, D] -> [1, n, D].

    n is N, or the number of places in `rows.first` where only first tokens ask.
    """
    rows, H, D = running.rows, heads, key.shape[-1]
    B, L, width = rows.batch, rows.keys.shape[-1], D // heads
    every = query.shape[1] == key.shape[1]

    def spread(x: Tensor) -> Tensor:
        return Move.apply(x.reshape(-1, width), rows.spread, rows.collect, rows.idle).view(B * H, L, width)

    k, v = spread(key), spread(value)
    q = spread(query) if every else _chosen(query[0], rows.seats).view(B * H, 1, width)
    there, prefix = rows.keys, running.prefix(layer)
    if prefix is not None:
        k, v = (torch.cat([x, _heads(more, H)], 1) for x, more in ((k, prefix.keys), (v, prefix.values)))
        there = torch.cat([there, prefix.keys_there[:, None, None]], -1)
    if running.explicit:
        hide = rows.hide if prefix is None else _hide(there, H)
        with running.products():
            scores = torch.baddbmm(hide.to(q.dtype), q, k.transpose(1, 2), alpha=width**-0.5)
        probabilities = scores.softmax(-1, dtype=torch.float32)
        factors = running.probability_factors(layer)
        if factors is not None:
            probabilities = probabilities * factors[:, :, : q.shape[1]].reshape(probabilities.shape)
        with running.products():
            out = probabilities @ v
    else:
        q, k, v = (x.view(B, H, -1, width) for x in (q, k, v))
        with running.products():
            out = F.scaled_dot_product_attention(q, k, v, attn_mask=there)
    out = out.to(q.dtype)
    if every:
        out = Move.apply(out.reshape(-1, width), rows.collect, rows.spread, rows.padding)
    else:
        out = _chosen(out.reshape(B, D), rows.seated)
    return running.context(layer, query, out.view(1, -1, D))


def _chosen(x: Tensor, places: Tensor) -> Tensor:
    """x[places]; where every row has as many examples, that is x itself."""
    return x if len(x) == len(places) else x.index_select(0, places)


def _heads(x: Tensor, H: int) -> Tensor:
    """[B, l, D] -> [B H, l, D/H]."""
    return x.unflatten(-1, (H, -1)).transpose(1, 2).flatten(0, 1)


def _hide(there: Tensor, H: int) -> Tensor:
    """[B, 1, 1, L] -> [B H, 1, L]: 0 for keys that are there, else -inf."""
    hide = torch.zeros(there.shape, device=there.device).masked_fill_(~there, float("-inf"))
    return hide.expand(-1, H, -1, -1).flatten(0, 1)


# `Backbone` calls it itself; under a name of its own transformers makes no masks for it.
AttentionInterface.register(ATTENTION, attend)
