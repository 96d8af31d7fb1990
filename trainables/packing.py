"""Packed rows: a slot's mini-batch is one row of real tokens, and only attention knows where examples begin and end.

The frozen Hugging Face encoder sees K "sequences" of T tokens with explicit position ids; attention is plugged in through
transformers' attention interface, so that the model files stay untouched. Inside attention the examples are spread to
[B, H, L, D/H], L the longest example; every padded place repeats a token of its own example, never of another one, so
that a slot full of NaN cannot reach its neighbours through a product with zero.

Legend: K slots, T tokens of the longest row, B examples of all rows, L longest example, H heads, D width; N = K T H.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AttentionInterface

from trainables.tasks.contract import Split

ATTENTION = "packed"


@dataclass(frozen=True, kw_only=True)
class Rows:
    """K packed rows.

    input_ids, token_types, positions: [K, T]. `spread` [B H L] and `collect` [N] are the index maps between the heads of
    tokens and those of padded examples; `idle` lists the heads of tokens beyond their row's end, `padding` the padded
    places. `keys` [B, 1, 1, L] tells real keys (True), `hide` [B H, 1, L] is 0 for them and else -inf. `first` [K, E] is the
    flat place of each example's first token, E the most examples of a row; `weights` [K, E] is 1 / (examples of the row) for
    real examples and 0 for padding; labels [K, E]. `tokens`, `examples` and `longest` are per row: they size the row's own
    dropout stream.
    """

    input_ids: Tensor
    token_types: Tensor
    positions: Tensor
    spread: Tensor
    collect: Tensor
    idle: Tensor
    padding: Tensor
    keys: Tensor
    hide: Tensor
    first: Tensor
    weights: Tensor
    labels: Tensor
    tokens: list[int]
    examples: list[int]
    longest: list[int]

    @property
    def batch(self) -> int:
        return self.keys.shape[0]


def pack(batches: Sequence[tuple[Split, np.ndarray]], heads: int, device: torch.device) -> Rows:
    """Pack the examples `indices` of each split into one row each, for attention with so many heads."""
    K = len(batches)
    lengths = [split.offsets[chosen + 1] - split.offsets[chosen] for split, chosen in batches]
    tokens = [int(n.sum()) for n in lengths]
    T, L = max(tokens), max(int(n.max()) for n in lengths)
    E, B = max(map(len, lengths)), sum(map(len, lengths))
    ids, types, positions = (np.zeros((K, T), np.int64) for _ in range(3))
    collect, first, labels = np.zeros((K, T), np.int64), np.zeros((K, E), np.int64), np.zeros((K, E), np.float32)
    weights, spread, keys = np.zeros((K, E), np.float32), np.zeros((B, L), np.int64), np.zeros((B, L), bool)
    real = np.arange(T)[None, :] < np.array(tokens)[:, None]
    head = np.arange(heads)
    b = 0
    for k, ((split, chosen), n) in enumerate(zip(batches, lengths, strict=True)):
        start = np.cumsum(n) - n
        within = np.arange(tokens[k]) - np.repeat(start, n)
        source = np.repeat(split.offsets[chosen], n) + within
        t, e = tokens[k], len(n)
        ids[k, :t], types[k, :t], positions[k, :t] = split.ids[source], split.token_types[source], within
        column = np.arange(L)[None, :]
        keys[b : b + e] = column < n[:, None]
        spread[b : b + e] = k * T + start[:, None] + np.where(keys[b : b + e], column, 0)
        collect[k] = b * heads * L
        collect[k, :t] = np.repeat(np.arange(b, b + e) * heads * L, n) + within
        first[k] = k * T
        first[k, :e] = k * T + start
        weights[k, :e], labels[k, :e] = 1 / e, split.labels[chosen]
        b += e

    hide = np.where(keys, np.float32(0), np.float32("-inf"))
    every = np.broadcast_to(keys[:, None, :], (B, heads, L))

    def move(array: np.ndarray) -> Tensor:
        return torch.from_numpy(array).to(device, non_blocking=True)

    return Rows(
        input_ids=move(ids),
        token_types=move(types),
        positions=move(positions),
        spread=move((spread[:, None, :] * heads + head[:, None]).reshape(-1)),
        collect=move((collect[:, :, None] + head * L).reshape(-1)),
        idle=move(np.flatnonzero(np.repeat(~real.reshape(-1), heads))),
        padding=move(np.flatnonzero(~every.reshape(-1))),
        keys=move(keys[:, None, None, :]),
        hide=move(np.repeat(hide, heads, axis=0)[:, None, :]),
        first=move(first),
        weights=move(weights),
        labels=move(labels),
        tokens=tokens,
        examples=[len(n) for n in lengths],
        longest=[int(n.max()) for n in lengths],
    )


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


def packed_attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float,
    rows: Rows,
    dropout_of: Any = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """query, key, value: [K, H, T, D/H]. `dropout_of(layer)` gives the factors [B, H, L, L] of the probabilities, or None."""
    K, H, T, width = query.shape
    B, L = rows.batch, rows.keys.shape[-1]

    def spread(x: Tensor) -> Tensor:
        heads = x.transpose(1, 2).reshape(K * T * H, width)
        return Move.apply(heads, rows.spread, rows.collect, rows.idle).view(B * H, L, width)

    q, k, v = spread(query), spread(key), spread(value)
    if dropout_of is None:
        q, k, v = (x.view(B, H, L, width) for x in (q, k, v))
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=rows.keys, scale=scaling)
    else:
        # Explicit, because each trial draws its own dropout, and because scores need a second derivative (GraSP).
        probabilities = torch.baddbmm(rows.hide.to(q.dtype), q, k.transpose(1, 2), alpha=scaling).softmax(-1)
        factors = dropout_of(module.layer_idx)
        out = (probabilities if factors is None else probabilities * factors.view(B * H, L, L)) @ v
    out = Move.apply(out.reshape(B * H * L, width), rows.collect, rows.spread, rows.padding)
    return out.view(K, T, H, width), None


AttentionInterface.register(ATTENTION, packed_attention)
