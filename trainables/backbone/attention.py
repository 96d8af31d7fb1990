"""Attention over packed rows: the only step that depends on where examples begin and end.

Inside it the examples are spread to [B, H, L, D/H]; every padded place repeats a token of its own example, never of another
one, so that a trial full of NaN cannot reach another one through a product with zero. Trials whose method adds keys and
values of its own have them in further columns, which other trials' examples do not attend to.

Legend: N tokens of all rows, B examples of all rows, L longest example, l most keys that a method adds, H heads, D width.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from trainables.backbone.packing import Rows


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


def attend(
    rows: Rows,
    heads: int,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    products: Callable[[], AbstractContextManager[object]],
    explicit: bool,
    extra: ExtraKeyValues | None = None,
    factors: Tensor | None = None,
) -> Tensor:
    """The heads' joined outputs [1, n, D] for queries [1, n, D] on keys and values [1, N, D].

    n is N, or K E if only the first token of each example has a query.

    products: the context in which matrix products are computed, which sets their precision.
    explicit: compute scores and probabilities as tensors of their own, for dropout or a second derivative.
    extra: keys and values that methods add.
    factors: dropout factors [B, H, L, L + l] of the probabilities; explicit only.
    """
    H, D = heads, key.shape[-1]
    B, L, width = rows.batch, rows.keys.shape[-1], D // heads
    every = query.shape[1] == key.shape[1]

    def spread(x: Tensor) -> Tensor:
        return Move.apply(x.reshape(-1, width), rows.spread, rows.collect, rows.idle).view(B * H, L, width)

    k, v = spread(key), spread(value)
    q = spread(query) if every else _chosen(query[0], rows.real_examples).view(B * H, 1, width)
    there = rows.keys
    if extra is not None:
        k, v = (torch.cat([x, _heads(more, H)], 1) for x, more in ((k, extra.keys), (v, extra.values)))
        there = torch.cat([there, extra.keys_there[:, None, None]], -1)
    if explicit:
        hide = rows.hide if extra is None else _hide(there, H)
        with products():
            scores = torch.baddbmm(hide.to(q.dtype), q, k.transpose(1, 2), alpha=width**-0.5)
        probabilities = scores.softmax(-1, dtype=torch.promote_types(q.dtype, torch.float32))
        if factors is not None:
            probabilities = probabilities * factors[:, :, : q.shape[1]].reshape(probabilities.shape)
        with products():
            out = probabilities @ v
    else:
        q, k, v = (x.view(B, H, -1, width) for x in (q, k, v))
        with products():
            out = F.scaled_dot_product_attention(q, k, v, attn_mask=there)
    out = out.to(q.dtype)
    if every:
        out = Move.apply(out.reshape(-1, width), rows.collect, rows.spread, rows.padding)
    else:
        out = _chosen(out.reshape(B, D), rows.examples_at)
    return out.view(1, -1, D)


def _chosen(x: Tensor, places: Tensor) -> Tensor:
    """x[places]; x itself if all rows have equally many examples."""
    return x if len(x) == len(places) else x.index_select(0, places)


def _heads(x: Tensor, H: int) -> Tensor:
    """[B, l, D] -> [B H, l, D/H]."""
    return x.unflatten(-1, (H, -1)).transpose(1, 2).flatten(0, 1)


def _hide(there: Tensor, H: int) -> Tensor:
    """[B, 1, 1, L] -> [B H, 1, L]: 0 for existing keys, else -inf."""
    hide = torch.zeros(there.shape, device=there.device).masked_fill_(~there, float("-inf"))
    return hide.expand(-1, H, -1, -1).flatten(0, 1)
