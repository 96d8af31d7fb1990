"""Which rows of a pass belong to which stacked trials.

Rows of one stack stand side by side and have one width, so a site gives each stack a rectangle of the hidden states; there is no
loop over trials.

Legend: K trials, N tokens of all rows, n of those that hidden states are of, G rows of a stack, T their width.
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
    """Rows [start, stop) of a pass, and the stacked parameters that act on them.

    rows: indices of those rows in the stack.
    step_inputs: what the method sampled for this step, or its constants in evaluation.
    noise_seed: seed of the random numbers that private weights use in this step; None in evaluation.
    """

    parameters: StackedParameters
    start: int
    stop: int
    rows: slice | Sequence[int] = field(default_factory=lambda: slice(None))
    step_inputs: Mapping[str, Tensor] = field(default_factory=dict)
    noise_seed: int | None = None

    @cached_property
    def values(self) -> dict[str, Tensor]:
        """The tensors of these rows by name, as leaves or views for this pass."""
        return self.parameters.named_tensors(self.rows, self.noise_seed)

    @cached_property
    def common(self) -> dict[str, Tensor]:
        """Tensors that the formulas of all sites find beside their own parameters."""
        shared = {name: self.values[f"{SHARED}.{name}"] for name in self.parameters.layout.names.get(SHARED, ())}
        return {**self.parameters.constants, **self.step_inputs, **shared}

    def acts(self, prefix: str) -> bool:
        return prefix in self.parameters.layout.names

    def under(self, prefix: str) -> Values:
        own = {name: self.values[f"{prefix}.{name}"] for name in self.parameters.layout.names[prefix]}
        return Values({**self.common, **own})

    def everything(self) -> dict[str, Values]:
        """The parameters by prefix, for a penalty."""
        return {prefix: self.under(prefix) for prefix in self.parameters.layout.names}

    def of(self, h: Tensor) -> Tensor:
        """The segment's rows of h [K, ...]."""
        return h if self.stop - self.start == len(h) else h[self.start : self.stop]


class SegmentedRows:
    """The rows of one pass, cut into segments."""

    def __init__(self, rows: Rows, segments: list[Segment]):
        self.rows, self.segments = rows, segments
        self._number = {id(s): i for i, s in enumerate(segments)}
        # The last tensors that were split: several formulas of a site read the same one.
        self._splits: list[tuple[Tensor, tuple[Tensor, ...]]] = []

    def part(self, s: Segment, h: Tensor, tokens: TokenSelection) -> Tensor:
        """The segment's part [G, T, width] of h [1, n, width]."""
        start, stop = tokens.starts[s.start], tokens.starts[s.stop]
        part = h if stop - start == h.shape[1] else self._split(h, tokens)[self._number[id(s)]]
        return part.view(s.stop - s.start, -1, h.shape[-1])

    def _split(self, h: Tensor, tokens: TokenSelection) -> tuple[Tensor, ...]:
        """Every segment's part of h. Their gradients come back as one tensor; those of slices are each of h's size."""
        for known, parts in self._splits:
            if known is h:
                return parts
        parts = h.split([tokens.starts[s.stop] - tokens.starts[s.start] for s in self.segments], dim=1)
        self._splits = [*self._splits[-1:], (h, parts)]
        return parts


def join(parts: list[Tensor]) -> Tensor:
    """The segments' parts [G, T, width] -> [1, n, width]."""
    rows = [part.reshape(1, -1, part.shape[-1]) for part in parts]
    return rows[0] if len(rows) == 1 else torch.cat(rows, dim=1)
