"""One forward pass over the rows of several groups: who acts where, and on which rows.

Rows of one group stand side by side, so a site gives each group a slice of the hidden states; there is no loop over trials.

Legend: K slots, T tokens, D width, E examples of a row, C outputs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from trainables.backbone import Backbone
from trainables.dropout import Masks
from trainables.group import Group
from trainables.methods.contract import Site
from trainables.packing import Rows


@dataclass(frozen=True)
class Segment:
    """Rows [start, stop) of the pass belong to `rows` of a group."""

    group: Group
    start: int
    stop: int
    rows: slice = field(default_factory=lambda: slice(None))

    @property
    def span(self) -> slice:
        return slice(self.start, self.stop)


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
        return [self._head(s, first[s.span]) for s in self._segments]

    def place(self, number: int, layer: int, site: Site | None, h: Tensor) -> Tensor:
        """Dropout, then each method's formula: h [K, T, D] -> [K, T, D]."""
        factors = self._masks.hidden(number) if self._masks else None
        if factors is not None:
            h = h * factors
        if not any(site in s.group.layout.method.sites for s in self._segments):
            return h
        return _join([self._transform(s, layer, site, h[s.span]) for s in self._segments])

    def norm(self, number: int) -> tuple[Tensor, Tensor] | None:
        """Gain and bias [K, 1, D] where some trial trains its own LayerNorms; the others get the frozen ones."""
        name = f"norm.{number}."
        if not any(name + "weight" in s.group.leaves for s in self._segments):
            return None
        frozen = self._backbone.norms[number]
        return self._per_row(name + "weight", frozen.weight), self._per_row(name + "bias", frozen.bias)

    def _per_row(self, name: str, frozen: Any) -> Tensor:
        parts = []
        for s in self._segments:
            leaf = s.group.leaves.get(name)
            parts.append(frozen.expand(s.stop - s.start, 1, -1) if leaf is None else leaf[s.rows])
        return _join(parts)

    def _transform(self, s: Segment, layer: int, site: Site | None, h: Tensor) -> Tensor:
        method = s.group.layout.method
        if site is None or site not in method.sites:
            return h
        return method.transform(h, s.group.site(layer, site, s.rows))

    def _head(self, s: Segment, first: Tensor) -> Tensor:
        """first [G, E, D] -> [G, E, C]: linear on BERT's pooled state, dense + tanh + linear on RoBERTa's."""
        h = self._drop(first, s, 0)
        if not self._backbone.shape.pooler:
            h = torch.tanh(h @ s.group.head("dense", s.rows) + s.group.head("dense_bias", s.rows))
            h = self._drop(h, s, 1)
        return h @ s.group.head("out", s.rows) + s.group.head("out_bias", s.rows)

    def _drop(self, h: Tensor, s: Segment, which: int) -> Tensor:
        factors = self._masks.head(which) if self._masks else None
        return h if factors is None else h * factors[s.span]


def losses_of(logits: Tensor, rows: Rows, segment: Segment, regression: bool) -> Tensor:
    """Mean loss of each row [G]: cross-entropy of logits [G, E, C], or squared error of [G, E, 1]."""
    labels, weights = rows.labels[segment.span], rows.weights[segment.span]
    if regression:
        each = (logits.squeeze(-1) - labels).square()
    else:
        each = F.cross_entropy(logits.flatten(0, 1), labels.flatten().long(), reduction="none").view_as(weights)
    return (each * weights).sum(1)


def _join(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)
