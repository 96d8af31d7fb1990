"""Packed rows: a trial's mini-batch is one row of tokens, its examples end to end. Only attention depends on their boundaries.

The encoder processes all rows as one sequence of N tokens with explicit position ids. Examples are not padded within a row. A
block is the consecutive rows of trials that are computed together; its rows are padded at their end to the longest of them, so
that their hidden states are one tensor [rows, tokens, hidden size]. Blocks differ in tokens per row. A method may add virtual
tokens to each example: after the first token if heads read that one (encoders), else before it. They have positions of their
own, and the method supplies their embeddings.

With `PaddedSizes` the rows are padded further, so that mini-batches of other lengths have tensors of the same shapes. A row
that has fewer examples than its size says gets fillers: copies of the first token of its first example, with weight 0. No
result of a trial depends on its fillers or its padding.

Legend: K rows, N tokens of all rows with this padding, B examples of all rows with fillers, E most examples of a row, L
tokens of the longest example or more, H attention heads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from trainables.tasks.task_data import Split


@dataclass(frozen=True, eq=False, kw_only=True)
class TokenSelection:
    """The n tokens that hidden states [1, n, width] belong to: all N tokens of the rows, or some of them.

    starts: tokens of row k have the indices starts[k] to starts[k + 1] - 1 among the n.
    index [n]: indices of the selected tokens among all N; None if all are selected.
    """

    starts: list[int]
    index: Tensor | None = None

    def select(self, h: Tensor) -> Tensor:
        """Returns the hidden states [1, n, width] of the selected tokens, from those of all tokens, h [1, N, width]."""
        return h if self.index is None else h.index_select(1, self.index)


@dataclass(frozen=True, kw_only=True)
class PaddedSizes:
    """Sizes to which rows are padded; at least those that `needed_sizes` returns.

    widths: tokens of each block's rows. examples: of each row, with fillers. longest: tokens of the longest example.
    exact: no row and no example is padded, and there are no fillers.
    """

    widths: tuple[int, ...]
    examples: tuple[int, ...]
    longest: int
    exact: bool


@dataclass(frozen=True, kw_only=True)
class Rows:
    """K packed rows, one mini-batch each, and the index maps between them and the padded examples that attention needs.

    "[B H L]" without commas means flattened; indices into [N, H] or [B, H, L] are flat.
    input_ids, token_types, positions [1, N]: of all tokens; row k has the indices `starts`[k] to `starts`[k + 1] - 1.
    spread [B H L]: for each place of the padded examples [B, H, L], the index into [N, H] of the token and head copied there.
    collect [N H]: for each token and head [N, H], the index of its place in [B, H, L].
    idle: indices into [N, H] of fillers and of the padding at the end of rows. padding: indices of padded places in [B, H, L].
        With `PaddedSizes` both are masks [N H] and [B H L] instead, because the number of indices would change.
        With `heads` = 1 in `pack`, H is 1 in these four: tokens are moved as a whole, and their heads are split afterwards.
    keys [B, 1, 1, L]: True where an example has a token. hide [B H, 1, L]: 0 there, else -inf.
    read [K, E]: index of the token of each example that heads read, the first or the last one; a row with fewer than E examples
        repeats that of its first example.
    real_examples [B]: each example's index in the flattened `read`. examples_at [K E]: for each entry of the flattened
        `read`, the number of its example.
    weights [K, E]: 1 / (number of the row's examples) for existing examples, else 0. labels [K, E]: 0 for missing examples.
    tokens, examples, longest: per row, how many tokens and examples it has, and tokens of its longest example, without
        padding and fillers and with virtual tokens. A row's dropout depends on these numbers, not on those of other rows.
    sizes: per row, how many examples it has with fillers. owner [B]: the number of the row that each example belongs to.
    virtual: indices of the virtual tokens, ordered by row and example. added: how many each example of a row has, per row.
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
    read: Tensor
    real_examples: Tensor
    examples_at: Tensor
    weights: Tensor
    labels: Tensor
    tokens: list[int]
    examples: list[int]
    longest: list[int]
    sizes: list[int]
    owner: Tensor
    starts: list[int]
    virtual: Tensor
    added: list[int]

    @property
    def batch(self) -> int:
        return self.keys.shape[0]

    @property
    def moves_heads(self) -> bool:
        """Whether `spread` and `collect` split the heads, too. Only encoders with one head have the same maps without that."""
        return len(self.collect) > self.input_ids.shape[1]

    @property
    def in_order(self) -> bool:
        """Whether no token has to move: there is no padding."""
        return len(self.idle) == len(self.padding) == 0

    @cached_property
    def all_tokens(self) -> TokenSelection:
        return TokenSelection(starts=self.starts)

    @cached_property
    def read_tokens(self) -> TokenSelection:
        """The token of each example that heads read: E per row, in rows with fewer examples that of the first is repeated."""
        K, E = self.read.shape
        return TokenSelection(starts=list(range(0, K * E + 1, E)), index=self.read.reshape(-1))

    @cached_property
    def places(self) -> Tensor:
        """Indices [B, L] of each example's tokens; at padded places that of the example's first token."""
        heads, L = len(self.spread) // (self.batch * self.keys.shape[-1]), self.keys.shape[-1]
        return self.spread.view(self.batch, heads, L)[:, 0] // heads

    @cached_property
    def example(self) -> Tensor:
        """The number of the example [N] that each token belongs to; for padding at the end of a row, its first example."""
        N, L = self.input_ids.shape[1], self.keys.shape[-1]
        heads = len(self.collect) // N
        return self.collect.view(N, heads)[:, 0] // (heads * L)

    @cached_property
    def real(self) -> Tensor:
        """A mask [1, N, 1]: 1 for tokens, 0 for fillers and padding at the end of rows."""
        N = self.input_ids.shape[1]
        return set_to_zero(self.weights.new_ones(len(self.collect)), self.idle).view(1, N, -1)[..., :1]

    def examples_of(self, start: int, stop: int) -> slice:
        """Returns the slice of the B examples that belong to rows start to stop - 1."""
        return slice(sum(self.sizes[:start]), sum(self.sizes[:stop]))


def pack(
    batches: Sequence[tuple[Split, np.ndarray]],
    heads: int,
    device: torch.device,
    blocks: Sequence[int] | None = None,
    added: Sequence[int] | None = None,
    padded: PaddedSizes | None = None,
    reads_last: bool = False,
) -> Rows:
    """Pack each batch (a split and indices of its examples) into one row. Returns the rows as tensors on the device.

    heads: attention heads of the encoder, or 1, see `Rows`. blocks: how many consecutive rows each block has, in order; by
    default all rows are one block. added: for each row, how many virtual tokens each example gets; by default none. padded:
    pad to these sizes. reads_last: heads read the last token of an example instead of the first, and virtual tokens come before
    all others instead of after the first.
    """
    K = len(batches)
    more = list(added or [0] * K)
    lengths = [s.offsets[chosen + 1] - s.offsets[chosen] + m for (s, chosen), m in zip(batches, more, strict=True)]
    tokens, examples = [int(n.sum()) for n in lengths], [len(n) for n in lengths]
    longest, sizes = [int(n.max()) for n in lengths], list(padded.examples) if padded else examples
    filled = [
        (split, *_with_fillers(chosen, n, size - len(n), m))
        for (split, chosen), n, m, size in zip(batches, lengths, more, sizes, strict=True)
    ]
    starts = _starts([int(n.sum()) for _, _, n in filled], blocks or [K], padded.widths if padded else None)
    N, L = starts[-1], padded.longest if padded else max(longest)
    E, B = max(sizes), sum(sizes)
    ids, types, positions, collect = (np.zeros(N, np.int64) for _ in range(4))
    read, examples_at = np.zeros((K, E), np.int64), np.zeros((K, E), np.int64)
    labels, weights = np.zeros((K, E), np.float32), np.zeros((K, E), np.float32)
    spread, keys, real = np.zeros((B, L), np.int64), np.zeros((B, L), bool), np.zeros(N, bool)
    head, virtual = np.arange(heads), []
    b = 0
    for k, (split, chosen, n) in enumerate(filled):
        start = np.cumsum(n) - n
        within = np.arange(n.sum()) - np.repeat(start, n)
        source = np.repeat(split.offsets[chosen], n) + np.maximum(within - more[k], 0)
        place = within - (not reads_last)
        virtual.append(starts[k] + np.flatnonzero((place >= 0) & (place < more[k])))
        row, e, own = slice(starts[k], starts[k] + len(within)), len(n), examples[k]
        ids[row], types[row], positions[row] = split.ids[source], split.token_types[source], within
        real[starts[k] : starts[k] + tokens[k]] = True
        column = np.arange(L)[None, :]
        keys[b : b + e] = column < n[:, None]
        spread[b : b + e] = starts[k] + start[:, None] + np.where(keys[b : b + e], column, 0)
        collect[starts[k] : starts[k + 1]] = b * heads * L
        collect[row] = np.repeat(np.arange(b, b + e) * heads * L, n) + within
        read[k, :e] = starts[k] + start + (n - 1 if reads_last else 0)
        read[k, e:] = read[k, 0]
        examples_at[k] = b
        examples_at[k, :e] = np.arange(b, b + e)
        weights[k, :own], labels[k, :own] = 1 / own, split.labels[chosen[:own]]
        b += e

    hide = np.where(keys, np.float32(0), np.float32("-inf"))
    every = np.broadcast_to(keys[:, None, :], (B, heads, L))
    idle, padding = np.repeat(~real, heads), ~every.reshape(-1)
    if padded is None or padded.exact:
        idle, padding = np.flatnonzero(idle), np.flatnonzero(padding)

    def move(array: np.ndarray) -> Tensor:
        return sent(torch.from_numpy(array), device)

    return Rows(
        input_ids=move(ids[None]),
        token_types=move(types[None]),
        positions=move(positions[None]),
        spread=move((spread[:, None, :] * heads + head[:, None]).reshape(-1)),
        collect=move((collect[:, None] + head * L).reshape(-1)),
        idle=move(idle),
        padding=move(padding),
        keys=move(keys[:, None, None, :]),
        hide=move(np.repeat(hide, heads, axis=0)[:, None, :]),
        read=move(read),
        real_examples=move(np.flatnonzero(np.arange(E) < np.array(sizes)[:, None])),
        examples_at=move(examples_at.reshape(-1)),
        weights=move(weights),
        labels=move(labels),
        tokens=tokens,
        examples=examples,
        longest=longest,
        sizes=sizes,
        owner=move(np.repeat(np.arange(K), sizes)),
        starts=starts,
        virtual=move(np.concatenate(virtual)),
        added=more,
    )


def needed_sizes(
    batches: Sequence[tuple[Split, np.ndarray]], blocks: Sequence[int], added: Sequence[int], sizes: Sequence[int]
) -> PaddedSizes:
    """Returns the smallest sizes that these batches fit in; arguments as for `pack`. `sizes`: examples per row with fillers."""
    widths, longest = [], 0
    for (split, chosen), more, size in zip(batches, added, sizes, strict=True):
        lengths = split.offsets[chosen + 1] - split.offsets[chosen] + more
        widths.append(int(lengths.sum()) + (size - len(chosen)) * (1 + more))
        longest = max(longest, int(lengths.max()))
    starts = _starts(widths, blocks)
    firsts = np.cumsum([0, *blocks[:-1]])
    return PaddedSizes(
        widths=tuple(starts[k + 1] - starts[k] for k in firsts),
        examples=tuple(sizes),
        longest=longest,
        exact=sum(sizes) * longest == starts[-1] == sum(widths) and [len(c) for _, c in batches] == list(sizes),
    )


def set_to_zero(x: Tensor, rows: Tensor) -> Tensor:
    """Sets rows of x [n, ...] to zero, in place, and returns x. `rows`: their indices, or a mask [n]."""
    if rows.dtype == torch.bool:
        return x.masked_fill_(rows.view(-1, *[1] * (x.ndim - 1)), 0)
    return x.index_fill_(0, rows, 0)


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """Returns a copy of a CPU tensor on the device. Pinned memory is used because other copies to a GPU wait for earlier work."""
    if device.type == "cuda":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


def _with_fillers(chosen: np.ndarray, lengths: np.ndarray, number: int, added: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns a row's examples and their lengths with `number` fillers: the first token of the first one, and virtual tokens."""
    if not number:
        return chosen, lengths
    return np.append(chosen, chosen[:1].repeat(number)), np.append(lengths, [1 + added] * number)


def _starts(tokens: Sequence[int], blocks: Sequence[int], widths: Sequence[int] | None = None) -> list[int]:
    """Returns the index of each row's first token, and last the number of all tokens, with the padding within blocks.

    tokens: the tokens of each row without padding. blocks: the number of rows in each block. widths: tokens of each block's
    rows with padding; by default those of the longest of its rows.
    """
    starts, k = [0], 0
    for block, number in enumerate(blocks):
        width = widths[block] if widths else max(tokens[k : k + number])
        starts += [starts[-1] + width * (i + 1) for i in range(number)]
        k += number
    return starts
