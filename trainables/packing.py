"""Packed rows: a slot's mini-batch is one row of real tokens, and only attention knows where examples begin and end.

The frozen Hugging Face encoder sees all rows as one "sequence" of N tokens with explicit position ids. Rows of one block have
the width of its longest, so that a group of trials is a rectangle [G, T]; blocks differ in width. Attention is plugged in
through transformers' attention interface, so that the model files stay untouched. Inside attention the examples are spread to
[B, H, L, D/H], L the longest example; every padded place repeats a token of its own example, never of another one, so
that a slot full of NaN cannot reach its neighbours through a product with zero.

Legend: K slots, N tokens of all rows, B examples of all rows, L longest example, H heads, D width.
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

    input_ids, token_types, positions: [1, N]; row k lies from `starts`[k] to `starts`[k + 1]. `spread` [B H L] and
    `collect` [N H] are the index maps between the heads of tokens and those of padded examples; `idle` lists the heads of
    tokens beyond their row's end, `padding` the padded places. `keys` [B, 1, 1, L] tells real keys (True), `hide`
    [B H, 1, L] is 0 for them and else -inf. `first` [K, E] is the place of each example's first token, E the most examples
    of a row; `weights` [K, E] is 1 / (examples of the row) for real examples and 0 for padding; labels [K, E]. `tokens`,
    `examples` and `longest` are per row: they size the row's own dropout stream.
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
    starts: list[int]

    @property
    def batch(self) -> int:
        return self.keys.shape[0]


def pack(
    batches: Sequence[tuple[Split, np.ndarray]], heads: int, device: torch.device, blocks: Sequence[int] | None = None
) -> Rows:
    """Pack the examples `indices` of each split into one row each, for attention with so many heads.

    `blocks`: how many rows in turn have one width; by default all.
    """
    K = len(batches)
    lengths = [split.offsets[chosen + 1] - split.offsets[chosen] for split, chosen in batches]
    tokens = [int(n.sum()) for n in lengths]
    starts = _starts(tokens, blocks or [K])
    N, L = starts[-1], max(int(n.max()) for n in lengths)
    E, B = max(map(len, lengths)), sum(map(len, lengths))
    ids, types, positions, collect = (np.zeros(N, np.int64) for _ in range(4))
    first, labels, weights = np.zeros((K, E), np.int64), np.zeros((K, E), np.float32), np.zeros((K, E), np.float32)
    spread, keys, real = np.zeros((B, L), np.int64), np.zeros((B, L), bool), np.zeros(N, bool)
    head = np.arange(heads)
    b = 0
    for k, ((split, chosen), n) in enumerate(zip(batches, lengths, strict=True)):
        start = np.cumsum(n) - n
        within = np.arange(tokens[k]) - np.repeat(start, n)
        source = np.repeat(split.offsets[chosen], n) + within
        row, e = slice(starts[k], starts[k] + tokens[k]), len(n)
        ids[row], types[row], positions[row], real[row] = split.ids[source], split.token_types[source], within, True
        column = np.arange(L)[None, :]
        keys[b : b + e] = column < n[:, None]
        spread[b : b + e] = starts[k] + start[:, None] + np.where(keys[b : b + e], column, 0)
        collect[starts[k] : starts[k + 1]] = b * heads * L
        collect[row] = np.repeat(np.arange(b, b + e) * heads * L, n) + within
        first[k] = starts[k]
        first[k, :e] = starts[k] + start
        weights[k, :e], labels[k, :e] = 1 / e, split.labels[chosen]
        b += e

    hide = np.where(keys, np.float32(0), np.float32("-inf"))
    every = np.broadcast_to(keys[:, None, :], (B, heads, L))

    def move(array: np.ndarray) -> Tensor:
        return torch.from_numpy(array).to(device, non_blocking=True)

    return Rows(
        input_ids=move(ids[None]),
        token_types=move(types[None]),
        positions=move(positions[None]),
        spread=move((spread[:, None, :] * heads + head[:, None]).reshape(-1)),
        collect=move((collect[:, None] + head * L).reshape(-1)),
        idle=move(np.flatnonzero(np.repeat(~real, heads))),
        padding=move(np.flatnonzero(~every.reshape(-1))),
        keys=move(keys[:, None, None, :]),
        hide=move(np.repeat(hide, heads, axis=0)[:, None, :]),
        first=move(first),
        weights=move(weights),
        labels=move(labels),
        tokens=tokens,
        examples=[len(n) for n in lengths],
        longest=[int(n.max()) for n in lengths],
        starts=starts,
    )


def _starts(tokens: Sequence[int], blocks: Sequence[int]) -> list[int]:
    """Where each row begins, and where the last one ends."""
    starts, k = [0], 0
    for number in blocks:
        width = max(tokens[k : k + number])
        starts += [starts[-1] + width * (i + 1) for i in range(number)]
        k += number
    return starts


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
    """query, key, value: [1, H, N, D/H]. `dropout_of(layer)` gives the factors [B, H, L, L] of the probabilities, or None."""
    H, N, width = query.shape[1:]
    B, L = rows.batch, rows.keys.shape[-1]

    def spread(x: Tensor) -> Tensor:
        heads = x.transpose(1, 2).reshape(N * H, width)
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
    return out.view(1, N, H, width), None


AttentionInterface.register(ATTENTION, packed_attention)
