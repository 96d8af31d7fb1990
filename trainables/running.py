"""One forward pass over the rows of several groups: who acts where, and on which rows.

Rows of one group stand side by side and have one width, so a site gives each group a rectangle of the hidden states; there is no
loop over trials.

Legend: K slots, N tokens of all rows, G rows of a group and T their width, D width, E examples of a row, C outputs.
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


class Affine(torch.autograd.Function):
    """h * gain + bias with h [G, T, D] and gain, bias [G, 1, D]: one operator forward, four backward."""

    @staticmethod
    def forward(ctx: Any, h: Tensor, gain: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(h, gain)
        return torch.addcmul(bias, h, gain)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        h, gain = ctx.saved_tensors
        return grad * gain, (grad * h).sum(1, keepdim=True), grad.sum(1, keepdim=True)


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
        """Dropout, then each method's formula: h [1, N, D] -> [1, N, D]."""
        factors = self._masks.hidden(number) if self._masks else None
        if factors is not None:
            h = h * factors
        if not any(site in s.group.layout.method.sites for s in self._segments):
            return h
        return _join([self._transform(s, layer, site, self._tokens(s, h)) for s in self._segments])

    def norm(self, number: int, h: Tensor) -> Tensor:
        """LayerNorm of h [1, N, D], with a trial's own gain and bias where it trains them."""
        frozen, name = self._backbone.norms[number], f"norm.{number}"
        shape, eps = frozen.normalized_shape, frozen.eps
        if not any(name in s.group.layout.names for s in self._segments):
            return F.layer_norm(h, shape, frozen.weight, frozen.bias, eps)
        plain = F.layer_norm(h, shape, None, None, eps)
        return _join([self._affine(s, name, frozen, self._tokens(s, plain)) for s in self._segments])

    def _affine(self, s: Segment, name: str, frozen: Any, h: Tensor) -> Tensor:
        if name not in s.group.layout.names:
            return h * frozen.weight + frozen.bias
        own = s.under(name)
        return Affine.apply(h, own.weight, own.bias)

    def _tokens(self, s: Segment, h: Tensor) -> Tensor:
        """The segment's part of h [1, N, D], as [G, T, D]."""
        start, stop = self._rows.starts[s.start], self._rows.starts[s.stop]
        part = h if stop - start == h.shape[1] else h[:, start:stop]
        return part.view(s.stop - s.start, -1, h.shape[-1])

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
    """[G, T, D] of each segment -> [1, N, D]."""
    rows = [part.view(1, -1, part.shape[-1]) for part in parts]
    return rows[0] if len(rows) == 1 else torch.cat(rows, dim=1)
