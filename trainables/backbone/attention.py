"""Attention over packed rows: the only step that depends on where examples begin and end.

Here the examples are padded to [B, H, L, D/H]. A padded place holds a copy of a token of the same example: if it held another
trial's token, a NaN of that trial would spread through a product with zero. Keys and values that a method adds are placed
after those of the tokens; a mask hides them from the examples of other trials.

Legend: N tokens of all rows, n of them that have a query, K rows, E most examples of a row, B examples of all rows, L tokens
of the longest example, l most keys that a method adds, H heads, D width.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from trainables.backbone.packing import Rows, set_to_zero


class Move(torch.autograd.Function):
    """Returns x[there]. Its gradient is computed as grad[back], the inverse map, and set to zero for the rows `unread` of x.

    A gather in both directions is several times faster than the scatter that autograd would use for an index.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, there: Tensor, back: Tensor, unread: Tensor) -> Tensor:
        ctx.save_for_backward(back, unread)
        return x.index_select(0, there)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        back, unread = ctx.saved_tensors
        return set_to_zero(grad.index_select(0, back), unread), None, None, None


# Returns the bias [B or 1, H, n, L] of the scores, from the queries [B H, n, D/H] and the tokens' keys [B H, L, D/H]. If n is
# not L, the queries are those of the tokens that heads read. Keys that methods add have no bias.
ScoreBias = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class ExtraKeyValues:
    """Keys and values [B, l, D] that methods add to those of the tokens. `keys_there` [B, l] is False for padded ones."""

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
    causal: bool = False,
    window: int | None = None,
    bias: ScoreBias | None = None,
    scale: float | None = None,
    soft_cap: float | None = None,
) -> Tensor:
    """Attention of queries [1, n, D] to keys and values [1, N, D] of the same example.

    Returns the outputs [1, n, D], heads concatenated. n is N, or K E if only the tokens that heads read have queries.

    products: returns a context manager that sets the precision of matrix products.
    explicit: compute scores and probabilities as tensors, for dropout or a second derivative, instead of a fused kernel.
    extra: keys and values that methods add.
    factors: dropout factors [B, H, L, L + l] of the probabilities; used only if `explicit`.
    causal: no token attends to later ones. window: nor to those this many or more places away. Queries of some tokens only
        must be those of last tokens if `causal`, else of first ones.
    bias: returns what is added to the scores.
    scale: factor of the scores, None for 1 / sqrt(D/H). soft_cap: a score s becomes soft_cap tanh(s / soft_cap), before the
        mask; no fused kernel has that, so `explicit` is implied.
    """
    H, D = heads, key.shape[-1]
    B, L, width = rows.batch, rows.keys.shape[-1], D // heads
    every = query.shape[1] == key.shape[1]

    def spread(x: Tensor) -> Tensor:
        if rows.moves_heads:
            return Move.apply(x.reshape(-1, width), rows.spread, rows.collect, rows.idle).view(B * H, L, width)
        x = x[0] if rows.in_order else Move.apply(x[0], rows.spread, rows.collect, rows.idle)
        return x.view(B, L, H, width).transpose(1, 2).reshape(B * H, L, width)

    def collect(x: Tensor) -> Tensor:
        if rows.moves_heads:
            return Move.apply(x.reshape(-1, width), rows.collect, rows.spread, rows.padding)
        x = x.view(B, H, L, width).transpose(1, 2).reshape(B * L, D)
        return x if rows.in_order else Move.apply(x, rows.collect, rows.spread, rows.padding)

    k, v = spread(key), spread(value)
    q = spread(query) if every else _chosen(query[0], rows.real_examples).view(B * H, 1, width)
    there = _seen(rows.keys, L, every, causal, window)
    added = None if bias is None else bias(q, k)
    if extra is not None:
        k, v = (torch.cat([x, _heads(more, H)], 1) for x, more in ((k, extra.keys), (v, extra.values)))
        there = torch.cat([there, extra.keys_there[:, None, None].expand(-1, -1, there.shape[2], -1)], -1)

    def hiding() -> Tensor:
        """What is added to the scores [B H, n, L + l]: -inf for keys that are not attended to, else the bias or 0."""
        hide = rows.hide if there is rows.keys and rows.moves_heads else _hide(there, H)
        if added is None:
            return hide
        more = 0 if extra is None else extra.keys.shape[1]
        return hide + F.pad(added, (0, more)).expand(B, -1, -1, -1).flatten(0, 1)

    if explicit or soft_cap is not None:
        hide = hiding()
        factor = width**-0.5 if scale is None else scale
        with products():
            if soft_cap is None:
                scores = torch.baddbmm(hide.to(q.dtype), q, k.transpose(1, 2), alpha=factor)
            else:
                scores = hide + _capped(q @ k.transpose(1, 2), factor, soft_cap)
        probabilities = scores.softmax(-1, dtype=torch.promote_types(q.dtype, torch.float32))
        if factors is not None:
            probabilities = probabilities * factors[:, :, : q.shape[1]].reshape(probabilities.shape)
        with products():
            out = probabilities @ v
    else:
        q, k, v = (x.view(B, H, -1, width) for x in (q, k, v))
        with products():
            mask = there if added is None else hiding().view(B, H, q.shape[2], -1).to(q.dtype)
            out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale)
    out = out.to(q.dtype)
    out = collect(out) if every else _chosen(out.reshape(B, D), rows.examples_at)
    return out.view(1, -1, D)


def _capped(scores: Tensor, factor: float, cap: float) -> Tensor:
    """Returns cap tanh(factor s / cap) of products s of queries and keys, in fp32 or more."""
    return (scores.to(torch.promote_types(scores.dtype, torch.float32)) * (factor / cap)).tanh() * cap


def _chosen(x: Tensor, places: Tensor) -> Tensor:
    """Returns x[places]. If the lengths are equal, all rows have E examples, `places` is 0, 1, 2, ..., and x is returned."""
    return x if len(x) == len(places) else x.index_select(0, places)


def _heads(x: Tensor, H: int) -> Tensor:
    """Split the heads of x: [B, l, D] -> [B H, l, D/H]."""
    return x.unflatten(-1, (H, -1)).transpose(1, 2).flatten(0, 1)


def _seen(there: Tensor, L: int, every: bool, causal: bool, window: int | None) -> Tensor:
    """Returns the mask [B, 1, 1 or L, L] of the keys that a query attends to, from that of existing keys [B, 1, 1, L]."""
    if (not causal or not every) and (window is None or window >= L):
        return there
    places = torch.arange(L, device=there.device)
    last = there.sum(-1, keepdim=True) - 1
    own = places[:, None] if every else last if causal else 0 * last  # where a query is
    before = own - places
    if window is None:
        return there & (before >= 0)
    near = (before >= 0) & (before < window) if causal else before.abs() < window
    # Padded places attend to all keys: with none in their window they would be NaN, and their gradients, too.
    return there & (near | ~there.transpose(2, 3)) if every else there & near


def _hide(there: Tensor, H: int) -> Tensor:
    """Returns the attention bias [B H, n, L + l] of a mask `there` [B, 1, n, L + l]: 0 for keys attended to, -inf for others."""
    hide = torch.zeros(there.shape, device=there.device).masked_fill_(~there, float("-inf"))
    return hide.expand(-1, H, -1, -1).flatten(0, 1)
