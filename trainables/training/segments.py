"""Divides the rows of a forward pass into segments, one per stack of trials.

Rows of one stack are adjacent and have the same width. So each stack's part of the hidden states is one tensor [G, T, width],
to which its method's formula is applied without a loop over trials.

Legend: n tokens that hidden states belong to, K rows of all segments, G rows of one segment, T tokens of such a row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from trainables.backbone.packing import Rows, TokenSelection
from trainables.methods.base import SHARED
from trainables.methods.context import Values
from trainables.training.stacked_parameters import StackedParameters


@dataclass
class Segment:
    """Rows start to stop - 1 of a forward pass, and the stacked parameters of the trials that they belong to.

    rows: for each of these rows, the trial's row in `parameters`; by default all in order.
    step_inputs: by name, the random inputs that the method sampled for this step; in evaluation the constants instead of them.
    noise_seed: seed of the random numbers of `PrivateWeights` in this step; None in evaluation.
    """

    parameters: StackedParameters
    start: int
    stop: int
    rows: slice | Sequence[int] = field(default_factory=lambda: slice(None))
    step_inputs: Mapping[str, Tensor] = field(default_factory=dict)
    noise_seed: int | None = None

    @cached_property
    def values(self) -> dict[str, Tensor]:
        """The parameters of these rows by name, as leaves or views for this pass (`StackedParameters.named_tensors`)."""
        return self.parameters.named_tensors(self.rows, self.noise_seed)

    @cached_property
    def common(self) -> dict[str, Tensor]:
        """By name, the tensors that formulas of all sites may use: constants, step inputs, and the method's shared parameters."""
        shared = {name: self.values[f"{SHARED}.{name}"] for name in self.parameters.layout.names.get(SHARED, ())}
        return {**self.parameters.constants, **self.step_inputs, **shared}

    def acts(self, prefix: str) -> bool:
        """Whether the method has parameters under `prefix`, such as "<layer>.<site>"."""
        return prefix in self.parameters.layout.names

    def under(self, prefix: str) -> Values:
        """Returns what a formula at `prefix` may use: the parameters there and the tensors in `common`."""
        own = {name: self.values[f"{prefix}.{name}"] for name in self.parameters.layout.names[prefix]}
        return Values({**self.common, **own})

    def everything(self) -> dict[str, Values]:
        """Returns all parameters of the trials by prefix, such as "<layer>.<site>", for `Method.penalty`."""
        return {prefix: self.under(prefix) for prefix in self.parameters.layout.names}

    def of(self, h: Tensor) -> Tensor:
        """Returns the segment's rows [G, ...] of h [K, ...]."""
        return h if self.stop - self.start == len(h) else h[self.start : self.stop]


class SegmentedRows:
    """The packed rows of one forward pass and the segments that they are divided into."""

    def __init__(self, rows: Rows, segments: list[Segment]):
        self.rows, self.segments = rows, segments
        self._number = {id(s): i for i, s in enumerate(segments)}
        # The last two tensors that were split, with their parts, because several formulas of a site use the same tensor.
        self._splits: list[tuple[Tensor, tuple[Tensor, ...]]] = []

    def part(self, s: Segment, h: Tensor, tokens: TokenSelection) -> Tensor:
        """Returns the segment's part [G, T, width] of h [1, n, width], which holds the hidden states of `tokens`."""
        start, stop = tokens.starts[s.start], tokens.starts[s.stop]
        part = h if stop - start == h.shape[1] else self._split(h, tokens)[self._number[id(s)]]
        return part.view(s.stop - s.start, -1, h.shape[-1])

    def _split(self, h: Tensor, tokens: TokenSelection) -> tuple[Tensor, ...]:
        """Returns every segment's part of h [1, n, width].

        `split` makes one gradient for h from those of all parts; slices would each make a gradient of the size of h.
        """
        for known, parts in self._splits:
            if known is h:
                return parts
        parts = h.split([tokens.starts[s.stop] - tokens.starts[s.start] for s in self.segments], dim=1)
        self._splits = [*self._splits[-1:], (h, parts)]
        return parts


def join(parts: list[Tensor]) -> Tensor:
    """Concatenate the parts [G, T, width] of all segments, in order. Returns [1, n, width]."""
    rows = [part.reshape(1, -1, part.shape[-1]) for part in parts]
    return rows[0] if len(rows) == 1 else torch.cat(rows, dim=1)
