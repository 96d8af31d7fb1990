"""Implements `methods.context.SiteContext`: the site in a forward pass where a formula acts, and what it may ask there.

Legend: K slots of the segment, T tokens of their rows, b their examples, N tokens and B examples of all rows, L longest example.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch.nn.functional as F
from torch import Tensor

from trainables.methods.spec import LINEAR_MAPS, SUBLAYER_OUTPUTS, Site
from trainables.training.parameter_layout import frozen_starts

if TYPE_CHECKING:
    from trainables.backbone.packing import Rows
    from trainables.training.forward_pass import ForwardPass, Segment


@dataclass
class PackedSiteContext:
    """`incoming` and `asking`: what came to the site, and this layer's queries, of all rows [1, n, width]."""

    running: ForwardPass
    segment: Segment
    layer: int
    site: Site
    incoming: Tensor | None = None
    asking: Tensor | None = None

    @property
    def training(self) -> bool:
        return self.running.training

    @property
    def map_input(self) -> Tensor:
        return self._input_at("map_input", LINEAR_MAPS)

    @property
    def sublayer_input(self) -> Tensor:
        return self._input_at("sublayer_input", ("attention.prefix", *SUBLAYER_OUTPUTS))

    @property
    def residual(self) -> Tensor:
        return self._input_at("residual", SUBLAYER_OUTPUTS)

    @property
    def query(self) -> Tensor:
        assert self.asking is not None, f"there are no queries at {self.site}"
        return self.running.tokens(self.segment, self.asking)

    @property
    def weight(self) -> Tensor:
        return self.frozen(self.site)[0]

    def frozen(self, site: Site) -> tuple[Tensor, Tensor]:
        linear = self.running.backbone.map_at(self.layer, site)
        return linear.weight.T, linear.bias

    def start(self, name: str) -> Tensor:
        method = self.segment.group.layout.method
        return frozen_starts(method, self.running.backbone, self.layer, self.site)[name]

    def norm(self, h: Tensor) -> Tensor:
        norm = self.running.backbone.norms[2 * self.layer + 1 + SUBLAYER_OUTPUTS.index(self.site)]
        return F.layer_norm(h, norm.normalized_shape, norm.weight, norm.bias, norm.eps)

    def to_examples(self, v: Tensor) -> Tensor:
        return v.index_select(0, self.running.rows.owner[self._examples] - self.segment.start)

    def mean_of_examples(self, z: Tensor) -> Tensor:
        rows, n = self._all_rows, z.shape[-1]
        start = rows.starts[self.segment.start]
        there = rows.keys[self._examples, 0, 0, :, None].to(z.dtype)
        spread = z.reshape(-1, n).index_select(0, (rows.places[self._examples] - start).flatten())
        return (spread.view(*there.shape[:2], n) * there).sum(1, keepdim=True) / there.sum(1, keepdim=True)

    def to_tokens(self, m: Tensor) -> Tensor:
        rows, segment = self._all_rows, self.segment
        tokens = rows.example[rows.starts[segment.start] : rows.starts[segment.stop]] - self._examples.start
        return m[:, 0].index_select(0, tokens).view(segment.stop - segment.start, -1, m.shape[-1])

    def real(self) -> Tensor:
        return self.running.tokens(self.segment, self._all_rows.real)

    def keep(self, name: str, value: Tensor) -> None:
        if self.training:
            self.segment.group.update_buffer(f"{self.layer}.{self.site}.{name}", value)

    def _input_at(self, name: str, sites: tuple[Site, ...]) -> Tensor:
        assert self.site in sites, f"{name} is not defined at {self.site}: only at {', '.join(sites)}"
        assert self.incoming is not None
        return self.running.tokens(self.segment, self.incoming)

    @property
    def _all_rows(self) -> Rows:
        assert self.running.all_tokens, "only first tokens are here: the method has to say that it reads_all_tokens"
        return self.running.rows

    @property
    def _examples(self) -> slice:
        return self.running.rows.examples_of(self.segment.start, self.segment.stop)
