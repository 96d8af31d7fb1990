"""One forward pass over the packed rows of several stacks of trials: at each site, the formula of each stack's method.

A segment is the rows of one stack. Legend: N tokens of all rows, n of them that a layer computes, K rows of all segments, G
rows of one segment, T tokens of such a row, b examples of these rows, E most examples of a row, D width, l most keys that a
method adds, C outputs of the head.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from trainables.backbone.attention import ExtraKeyValues
from trainables.backbone.backbone import Backbone
from trainables.backbone.dropout import DropoutFactors
from trainables.backbone.packing import Rows, TokenSelection
from trainables.methods.spec import HeadReads, Site
from trainables.training.head import head_logits, pooled
from trainables.training.segments import Segment, SegmentedRows, join
from trainables.training.site_context import PackedSiteContext


class Affine(torch.autograd.Function):
    """h * gain + bias for h [G, T, D] and gain, bias [G, 1, D].

    Written out because it needs one operator forward and four backward, fewer than autograd would run.
    """

    @staticmethod
    def forward(ctx: Any, h: Tensor, gain: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(h, gain)
        return torch.addcmul(bias, h, gain)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        h, gain = ctx.saved_tensors
        return grad * gain, (grad * h).sum(1, keepdim=True), grad.sum(1, keepdim=True)


class ForwardPass:
    """One forward pass, in training if dropout factors (`masks`) are given, else in evaluation. Implements `EncoderPass`."""

    def __init__(
        self,
        backbone: Backbone,
        segments: list[Segment],
        rows: Rows,
        masks: DropoutFactors | None,
        twice_differentiable: bool = False,
    ):
        """`rows`: the packed rows of all segments, in their order.

        `twice_differentiable`: compute attention without fused kernels, because these have no second derivative.
        """
        self.backbone, self.rows, self.training = backbone, rows, masks is not None
        # If no method needs other tokens there, the last layer goes on with the tokens that heads read alone.
        self.ends_early = not any(
            s.parameters.layout.method.reads_all_tokens or self._head_reads(s) == "mean" for s in segments
        )
        self.explicit = self.training or twice_differentiable
        self._segmented, self._masks = SegmentedRows(rows, segments), masks

    def logits(self) -> list[Tensor]:
        """Run the encoder and the heads. Returns one tensor of logits [G, E, C] per segment."""
        segments = self._segmented.segments
        for s in segments:
            s.values  # noqa: B018 - sets computed weights in the encoder before it runs
        hidden, (K, E) = self.backbone.states(self), self.rows.read.shape
        read = (hidden if self.ends_early else self.rows.read_tokens.select(hidden)).view(K, E, -1)
        reads = [self._head_reads(s) for s in segments]
        found = {"first": read, "own": pooled(self.backbone, read) if "own" in reads else read}
        return [
            self._head(s, self._means(s, hidden) if what == "mean" else s.of(found[what]))
            for s, what in zip(segments, reads, strict=True)
        ]

    def select_query_positions(self, layer: int) -> TokenSelection:
        last = layer == self.backbone.shape.layers - 1
        return self.rows.read_tokens if last and self.ends_early else self.rows.all_tokens

    def insert_virtual_tokens(self, h: Tensor) -> Tensor:
        if not any(self.rows.added):
            return h
        starts = [0]
        for examples, added in zip(self.rows.sizes, self.rows.added, strict=True):
            starts.append(starts[-1] + examples * added)
        for s in self._segmented.segments:
            if s.acts("0.embeddings"):
                at = self._context(s, 0, "embeddings", self.rows.all_tokens)
                tokens = s.parameters.layout.method.prompt(s.under("0.embeddings"))
                places = self.rows.virtual[starts[s.start] : starts[s.stop]]
                h = h.index_copy(1, places, at.to_examples(tokens).flatten(0, 1)[None])
        return h

    def act(
        self,
        layer: int,
        site: Site,
        h: Tensor,
        tokens: TokenSelection,
        x: Tensor | None = None,
        residual: Tensor | None = None,
        query: Tensor | None = None,
    ) -> Tensor:
        name, segments = f"{layer}.{site}", self._segmented.segments
        if not any(s.acts(name) for s in segments):
            return h
        parts = []
        for s in segments:
            part = self._segmented.part(s, h, tokens)
            if s.acts(name):
                at = self._context(s, layer, site, tokens, x, residual, query)
                with self.backbone.products():
                    part = s.parameters.layout.method.transform(part, s.under(name), at).to(h.dtype)
            parts.append(part)
        return join(parts)

    def extra_key_values(self, layer: int, x: Tensor, tokens: TokenSelection) -> ExtraKeyValues | None:
        """Returns keys and values [B, l, D] of all B examples, None if no method adds any.

        Examples whose method adds fewer than l are padded with zeros and masked.
        """
        name, longest, segments = f"{layer}.attention.prefix", 0, self._segmented.segments
        for s in segments:
            if s.acts(name):
                longest = max(longest, s.parameters.layout.method.prefix_tokens)
        if not longest:
            return None
        parts = [self._prefix(s, layer, name, longest, x, tokens) for s in segments]
        keys, values, there = zip(*parts, strict=True)
        return ExtraKeyValues(keys=torch.cat(keys), values=torch.cat(values), keys_there=torch.cat(there))

    def drop(self, number: int, h: Tensor, tokens: TokenSelection) -> Tensor:
        factors = self._masks.hidden(number) if self._masks else None
        return h if factors is None else h * tokens.select(factors)

    def probability_factors(self, layer: int) -> Tensor | None:
        return self._masks.attention(layer) if self._masks else None

    def norm(self, number: int, h: Tensor, tokens: TokenSelection) -> Tensor:
        """LayerNorm number `number` of h [1, n, D]. Trials that train its gain or bias use their own."""
        frozen, name, segments = self.backbone.norms[number], f"norm.{number}", self._segmented.segments
        if not any(s.acts(name) for s in segments):
            return self.backbone.normalize(number, h)
        plain = self.backbone.normalize(number, h, affine=False)
        return join([self._affine(s, name, frozen, self._segmented.part(s, plain, tokens)) for s in segments])

    def _context(
        self,
        s: Segment,
        layer: int,
        site: Site,
        tokens: TokenSelection,
        x: Tensor | None = None,
        residual: Tensor | None = None,
        query: Tensor | None = None,
    ) -> PackedSiteContext:
        return PackedSiteContext(
            backbone=self.backbone,
            segmented=self._segmented,
            segment=s,
            tokens=tokens,
            training=self.training,
            layer=layer,
            site=site,
            whole_input=x,
            whole_residual=residual,
            whole_query=query,
        )

    def _prefix(
        self, s: Segment, layer: int, name: str, longest: int, x: Tensor, tokens: TokenSelection
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Returns the keys and values [b, l, D] that a segment's method adds, padded to l = `longest`, and a mask [b, l].

        The mask is False for padded ones; without such a method all are.
        """
        examples = self.rows.examples_of(s.start, s.stop)
        b, D, device = examples.stop - examples.start, self.backbone.shape.key_width, self.backbone.device
        there = torch.zeros(b, longest, dtype=torch.bool, device=device)
        if not s.acts(name):
            nothing = torch.zeros(b, longest, D, device=device)
            return nothing, nothing, there
        at = self._context(s, layer, "attention.prefix", tokens, x)
        keys, values = s.parameters.layout.method.prefix(s.under(name), at)
        there[:, : keys.shape[1]] = True
        if len(keys) != b:
            keys, values = at.to_examples(keys), at.to_examples(values)
        if self._masks and s.parameters.layout.method.prefix_dropout:
            kept = self._masks.prefix(layer)[:, examples, : keys.shape[1]]
            keys, values = keys * kept[0], values * kept[1]
        more = (0, 0, 0, longest - keys.shape[1])
        return F.pad(keys, more), F.pad(values, more), there

    def _affine(self, s: Segment, name: str, frozen: Any, h: Tensor) -> Tensor:
        gain, biased = self.backbone.gain, self.backbone.shape.norm_biases
        if not s.acts(name):
            return h * frozen.weight + frozen.bias if biased else h * gain(frozen.weight)
        own = s.under(name)
        if not biased:
            return h * gain(own.weight)
        if "weight" not in own:
            return torch.addcmul(own.bias, h, frozen.weight)
        return Affine.apply(h, own.weight, own.bias)

    def _means(self, s: Segment, hidden: Tensor) -> Tensor:
        """Mean of the hidden states [1, N, D] over the tokens of each of the segment's examples: [G, E, D]."""
        everything, examples = self.rows.all_tokens, self.rows.examples_of(s.start, s.stop)
        at = self._context(s, 0, "ffn.output", everything)
        each = self.rows.example[s.of(self.rows.read)] - examples.start
        return at.mean_of_examples(self._segmented.part(s, hidden, everything))[each, 0]

    def _head_reads(self, s: Segment) -> HeadReads:
        """What the heads of a segment read; "own" only for a family whose own head reads one token."""
        reads = s.parameters.layout.method.head_reads
        return "mean" if reads == "own" and self.backbone.shape.reads_mean else reads

    def _head(self, s: Segment, h: Tensor) -> Tensor:
        """Logits [G, E, C] of a segment from the inputs h [G, E, D] of its heads."""

        def drop(h: Tensor, which: int) -> Tensor:
            factors = self._masks.head(which) if self._masks else None
            return h if factors is None else h * s.of(factors)

        return head_logits(self.backbone, s.under("head"), h, drop)
