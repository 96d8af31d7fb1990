"""One forward pass over the rows of several groups: who acts where, and on which rows.

Rows of one group stand side by side and have one width, so a site gives each group a rectangle of the hidden states; there is no
loop over trials.

Legend: K slots, N tokens of all rows, n of those that are computed, B examples of all rows, G rows of a group, T their width and
b their examples, D width, E examples of a row, l keys that a method adds, C outputs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from trainables.backbone.attention import ExtraKeyValues
from trainables.backbone.backbone import Backbone
from trainables.backbone.dropout import DropoutFactors
from trainables.backbone.packing import Rows
from trainables.methods.base import SHARED
from trainables.methods.context import Values
from trainables.methods.spec import Site
from trainables.training.site_context import PackedSiteContext
from trainables.training.stacked_parameters import StackedParameters


@dataclass
class Segment:
    """Rows [start, stop) of the pass belong to `rows` of a group; `drawn`: what its method drew for this step.

    `noise`: the seed of what own weights draw in it, None in evaluation.
    """

    group: StackedParameters
    start: int
    stop: int
    rows: slice | Sequence[int] = field(default_factory=lambda: slice(None))
    drawn: Mapping[str, Tensor] = field(default_factory=dict)
    noise: int | None = None

    @cached_property
    def values(self) -> dict[str, Tensor]:
        """The group's tensors, opened for this pass."""
        return self.group.named_tensors(self.rows, self.noise)

    @cached_property
    def common(self) -> dict[str, Tensor]:
        """What every site's formula finds beside its own parameters."""
        shared = {name: self.values[f"{SHARED}.{name}"] for name in self.group.layout.names.get(SHARED, ())}
        return {**self.group.constants, **self.drawn, **shared}

    def acts(self, prefix: str) -> bool:
        return prefix in self.group.layout.names

    def under(self, prefix: str) -> Values:
        own = {name: self.values[f"{prefix}.{name}"] for name in self.group.layout.names[prefix]}
        return Values({**self.common, **own})

    def everything(self) -> dict[str, Values]:
        """The parameters by prefix, for a penalty."""
        return {prefix: self.under(prefix) for prefix in self.group.layout.names}

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


class ForwardPass:
    """A pass in training (with `masks`) or evaluation (without). Implements `backbone.Pass`.

    `twice_differentiable` keeps attention out of fused kernels that have no second derivative.
    """

    def __init__(
        self,
        backbone: Backbone,
        segments: list[Segment],
        rows: Rows,
        masks: DropoutFactors | None,
        twice_differentiable: bool = False,
    ):
        self.backbone, self.rows, self.training = backbone, rows, masks is not None
        # The last layer's queries, and all that follows them, are those of first tokens where nothing reads the others.
        self.ends_early = not any(s.group.layout.method.reads_all_tokens for s in segments)
        self._starts = rows.starts
        self._segments, self._masks = segments, masks
        self._number = {id(s): i for i, s in enumerate(segments)}
        # The last tensors that were split: several formulas of a site read the same one.
        self._splits: list[tuple[Tensor, tuple[Tensor, ...]]] = []
        self.explicit = self.training or twice_differentiable
        # What came to this layer's query map, for formulas of the attention's prefix and context.
        self._layer_input: Tensor | None = None

    def logits(self) -> list[Tensor]:
        """One [G, E, C] per segment."""
        for s in self._segments:
            s.values  # noqa: B018 - computed weights have to be in the encoder before it runs
        hidden, (K, E) = self.backbone.states(self), self.rows.first.shape
        first = (hidden if self.ends_early else self._first_tokens(hidden)).view(K, E, -1)
        reads = [s.group.layout.method.head_reads for s in self._segments]
        found = {"first": first, "own": self.backbone.pooled(first) if "own" in reads else first}
        return [
            self._head(s, self._means(s, hidden) if what == "mean" else s.of(found[what]))
            for s, what in zip(self._segments, reads, strict=True)
        ]

    def words(self, h: Tensor) -> Tensor:
        """Puts each method's virtual tokens in their places: h [1, N, D]."""
        if not any(self.rows.added):
            return h
        starts = [0]
        for examples, added in zip(self.rows.examples, self.rows.added, strict=True):
            starts.append(starts[-1] + examples * added)
        for s in self._segments:
            if s.acts("0.embeddings"):
                at = PackedSiteContext(self, s, 0, "embeddings")
                tokens = s.group.layout.method.prompt(s.under("0.embeddings"))
                places = self.rows.virtual[starts[s.start] : starts[s.stop]]
                h = h.index_copy(1, places, at.to_examples(tokens).flatten(0, 1)[None])
        return h

    def asking(self, layer: int, h: Tensor) -> Tensor:
        """Whose queries a layer asks: h [1, N, D] -> [1, n, D], all tokens, or in the last layer first tokens alone."""
        if layer < self.backbone.shape.layers - 1 or not self.ends_early:
            return h
        K, E = self.rows.first.shape
        self._starts = list(range(0, K * E + 1, E))
        return self._first_tokens(h)

    def linear(self, layer: int, site: Site, x: Tensor, h: Tensor) -> Tensor:
        if site == "attention.query":
            self._layer_input = x
        return self._apply(layer, site, h, x)

    def hidden(self, layer: int, h: Tensor) -> Tensor:
        return self._apply(layer, "ffn.hidden", h)

    def context(self, layer: int, query: Tensor, h: Tensor) -> Tensor:
        return self._apply(layer, "attention.context", h, self._layer_input, query)

    def place(self, number: int, layer: int, site: Site | None, h: Tensor, residual: Tensor | None) -> Tensor:
        """Dropout, then each method's formula: h [1, n, D] -> [1, n, D]."""
        factors = self._masks.hidden(number) if self._masks else None
        if factors is not None:
            h = h * (factors if self.all_tokens else self._first_tokens(factors))
        return h if site is None else self._apply(layer, site, h, residual)

    def norm(self, number: int, h: Tensor) -> Tensor:
        """LayerNorm of h [1, n, D], with a trial's own gain and bias where it trains them."""
        frozen, name = self.backbone.norms[number], f"norm.{number}"
        shape, eps = frozen.normalized_shape, frozen.eps
        if not any(s.acts(name) for s in self._segments):
            return F.layer_norm(h, shape, frozen.weight, frozen.bias, eps)
        plain = F.layer_norm(h, shape, None, None, eps)
        return _join([self._affine(s, name, frozen, self.tokens(s, plain)) for s in self._segments])

    def prefix(self, layer: int) -> ExtraKeyValues | None:
        """Keys and values of the methods that add some, hidden from the examples of those that add fewer."""
        name, longest = f"{layer}.attention.prefix", 0
        for s in self._segments:
            if s.acts(name):
                longest = max(longest, s.group.layout.method.prefix_tokens)
        if not longest:
            return None
        keys, values, there = zip(*[self._prefix_of(s, layer, name, longest) for s in self._segments], strict=True)
        return ExtraKeyValues(keys=torch.cat(keys), values=torch.cat(values), keys_there=torch.cat(there))

    def products(self) -> AbstractContextManager[object]:
        return self.backbone.products()

    def probability_factors(self, layer: int) -> Tensor | None:
        return self._masks.attention(layer) if self._masks else None

    @property
    def all_tokens(self) -> bool:
        """Whether hidden states are those of all tokens, n = N; else of first tokens, n = K E."""
        return self._starts is self.rows.starts

    def tokens(self, s: Segment, h: Tensor) -> Tensor:
        """The segment's part of h [1, n, D], as [G, T, D]."""
        start, stop = self._starts[s.start], self._starts[s.stop]
        part = h if stop - start == h.shape[1] else self._split(h)[self._number[id(s)]]
        return part.view(s.stop - s.start, -1, h.shape[-1])

    def _split(self, h: Tensor) -> tuple[Tensor, ...]:
        """Every segment's part of h [1, n, D]. Their gradients come back as one tensor; those of slices are each of h's size."""
        for known, parts in self._splits:
            if known is h:
                return parts
        parts = h.split([self._starts[s.stop] - self._starts[s.start] for s in self._segments], dim=1)
        self._splits = [*self._splits[-1:], (h, parts)]
        return parts

    def _apply(self, layer: int, site: Site, h: Tensor, x: Tensor | None = None, query: Tensor | None = None) -> Tensor:
        """Each method's formula on its own rows of h [1, n, D]."""
        name = f"{layer}.{site}"
        if not any(s.acts(name) for s in self._segments):
            return h
        parts = []
        for s in self._segments:
            part = self.tokens(s, h)
            if s.acts(name):
                at = PackedSiteContext(self, s, layer, site, x, query)
                with self.products():
                    part = s.group.layout.method.transform(part, s.under(name), at).to(h.dtype)
            parts.append(part)
        return _join(parts)

    def _first_tokens(self, h: Tensor) -> Tensor:
        """[1, N, D] -> [1, K E, D]"""
        return h.index_select(1, self.rows.first.reshape(-1))

    def _prefix_of(self, s: Segment, layer: int, name: str, longest: int) -> tuple[Tensor, Tensor, Tensor]:
        """A segment's keys and values [b, l, D], and which of them are there [b, l]."""
        examples = self.rows.examples_of(s.start, s.stop)
        b, D, device = examples.stop - examples.start, self.backbone.shape.width, self.backbone.device
        there = torch.zeros(b, longest, dtype=torch.bool, device=device)
        if not s.acts(name):
            nothing = torch.zeros(b, longest, D, device=device)
            return nothing, nothing, there
        at = PackedSiteContext(self, s, layer, "attention.prefix", self._layer_input)
        keys, values = s.group.layout.method.prefix(s.under(name), at)
        there[:, : keys.shape[1]] = True
        if len(keys) != b:
            keys, values = at.to_examples(keys), at.to_examples(values)
        if self._masks and s.group.layout.method.prefix_dropout:
            kept = self._masks.prefix(layer)[:, examples, : keys.shape[1]]
            keys, values = keys * kept[0], values * kept[1]
        more = (0, 0, 0, longest - keys.shape[1])
        return F.pad(keys, more), F.pad(values, more), there

    def _affine(self, s: Segment, name: str, frozen: Any, h: Tensor) -> Tensor:
        if not s.acts(name):
            return h * frozen.weight + frozen.bias
        own = s.under(name)
        if "weight" not in own:
            return torch.addcmul(own.bias, h, frozen.weight)
        return Affine.apply(h, own.weight, own.bias)

    def _means(self, s: Segment, hidden: Tensor) -> Tensor:
        """Means over each example's tokens: hidden [1, N, D] -> [G, E, D]."""
        at, examples = PackedSiteContext(self, s, 0, "ffn.output"), self.rows.examples_of(s.start, s.stop)
        each = self.rows.example[s.of(self.rows.first)] - examples.start
        return at.mean_of_examples(self.tokens(s, hidden))[each, 0]

    def _head(self, s: Segment, h: Tensor) -> Tensor:
        """h [G, E, D] -> [G, E, C]: linear, before it dense + tanh in RoBERTa's own."""
        head = s.under("head")
        h = self._drop(h, s, 0)
        if "dense" in head:
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
    """[G, T, D] of each segment -> [1, n, D]."""
    rows = [part.reshape(1, -1, part.shape[-1]) for part in parts]
    return rows[0] if len(rows) == 1 else torch.cat(rows, dim=1)
