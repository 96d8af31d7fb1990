"""One forward pass over the rows of several groups: who acts where, and on which rows.

Rows of one group stand side by side, so a site gives each group a slice of the hidden states; there is no loop over trials.

Legend: K slots, T tokens, D width, E examples of a row, C outputs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from trainables.backbone import Backbone
from trainables.dropout import Masks
from trainables.group import Group
from trainables.methods.contract import Site, Values
from trainables.packing import Rows


@dataclass
class Segment:
    """Rows [start, stop) of the pass belong to `rows` of a group."""

    group: Group
    start: int
    stop: int
    rows: slice = field(default_factory=lambda: slice(None))

    @cached_property
    def values(self) -> dict[str, Tensor]:
        """The group's tensors, opened for this pass."""
        return self.group.open(self.rows)

    def under(self, prefix: str) -> Values:
        return Values({name: self.values[f"{prefix}.{name}"] for name in self.group.layout.names[prefix]})

    def of(self, h: Tensor) -> Tensor:
        """Its rows of h [K, ...]."""
        return h if self.stop - self.start == len(h) else h[self.start : self.stop]


class RunningPass:
    """A pass in training (with `masks`) or evaluation (without). Implements `backbone.Pass`.

    `twice_differentiable` keeps attention out of fused kernels that have no second derivative.
    """

    def __init__(
        self,
        backbone: Backbone,
        segments: list[Segment],
        rows: Rows,
        masks: Masks | None,
        twice_differentiable: bool = False,
    ):
        self._backbone, self._segments, self._rows, self._masks = backbone, segments, rows, masks
        self.attention_dropout: Callable[[int], Tensor | None] | None = None
        if masks:
            self.attention_dropout = masks.attention
        elif twice_differentiable:
            self.attention_dropout = lambda layer: None

    def logits(self) -> list[Tensor]:
        """One [G, E, C] per segment."""
        first = self._backbone.first_tokens(self._rows, self)
        return [self._head(s, s.of(first)) for s in self._segments]

    def place(self, number: int, layer: int, site: Site | None, h: Tensor) -> Tensor:
        """Dropout, then each method's formula: h [K, T, D] -> [K, T, D]."""
        factors = self._masks.hidden(number) if self._masks else None
        if factors is not None:
            h = h * factors
        if not any(site in s.group.layout.method.sites for s in self._segments):
            return h
        return _join([self._transform(s, layer, site, s.of(h)) for s in self._segments])

    def norm(self, number: int) -> tuple[Tensor, Tensor] | None:
        """Gain and bias [K, 1, D] where some trial trains its own LayerNorms; the others get the frozen ones."""
        name = f"norm.{number}."
        if not any(name + "weight" in s.values for s in self._segments):
            return None
        frozen = self._backbone.norms[number]
        return self._per_row(name + "weight", frozen.weight), self._per_row(name + "bias", frozen.bias)

    def _per_row(self, name: str, frozen: Any) -> Tensor:
        parts = []
        for s in self._segments:
            own = s.values.get(name)
            parts.append(frozen.expand(s.stop - s.start, 1, -1) if own is None else own)
        return _join(parts)

    def _transform(self, s: Segment, layer: int, site: Site | None, h: Tensor) -> Tensor:
        method = s.group.layout.method
        if site is None or site not in method.sites:
            return h
        return method.transform(h, s.under(f"{layer}.{site}"))

    def _head(self, s: Segment, first: Tensor) -> Tensor:
        """first [G, E, D] -> [G, E, C]: linear on BERT's pooled state, dense + tanh + linear on RoBERTa's."""
        head = s.under("head")
        h = self._drop(first, s, 0)
        if not self._backbone.shape.pooler:
            h = self._drop(torch.tanh(h @ head.dense + head.dense_bias), s, 1)
        return h @ head.out + head.out_bias

    def _drop(self, h: Tensor, s: Segment, which: int) -> Tensor:
        factors = self._masks.head(which) if self._masks else None
        return h if factors is None else h * s.of(factors)


def losses_of(logits: Tensor, rows: Rows, segment: Segment, regression: bool) -> Tensor:
    """Mean loss of each row [G]: cross-entropy of logits [G, E, C], or squared error of [G, E, 1]."""
    labels, weights = segment.of(rows.labels), segment.of(rows.weights)
    if regression:
        each = (logits.squeeze(-1) - labels).square()
    else:
        each = F.cross_entropy(logits.flatten(0, 1), labels.flatten().long(), reduction="none").view_as(weights)
    return (each * weights).sum(1)


def _join(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)
