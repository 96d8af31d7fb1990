"""Implements `methods.context.SiteContext`: the tensors that a method's formula may use at its site of a forward pass.

The methods and properties without a docstring are described there.
Legend: n tokens that the site's hidden states belong to, over all segments.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from trainables.backbone.backbone import Backbone
from trainables.backbone.packing import Rows, TokenSelection
from trainables.methods.spec import LINEAR_MAPS, SUBLAYER_OUTPUTS, Site
from trainables.training.parameter_layout import frozen_initial_values
from trainables.training.segments import Segment, SegmentedRows


@dataclass(kw_only=True)
class PackedSiteContext:
    """The context of one segment (the rows of one stack) at one site.

    tokens: the tokens that hidden states at this site belong to.
    whole_input, whole_residual, whole_query: of all segments [1, n, width]: the input of the linear map or sub-layer, what
        will be added to the site's hidden states, and the layer's queries. Each is None at sites that do not have it.
    """

    backbone: Backbone
    segmented: SegmentedRows
    segment: Segment
    tokens: TokenSelection
    training: bool
    layer: int
    site: Site
    whole_input: Tensor | None = None
    whole_residual: Tensor | None = None
    whole_query: Tensor | None = None

    @property
    def map_input(self) -> Tensor:
        return self._at("map_input", self.whole_input, LINEAR_MAPS)

    @property
    def sublayer_input(self) -> Tensor:
        return self._at("sublayer_input", self.whole_input, ("attention.prefix", *SUBLAYER_OUTPUTS))

    @property
    def residual(self) -> Tensor:
        return self._at("residual", self.whole_residual, SUBLAYER_OUTPUTS)

    @property
    def query(self) -> Tensor:
        assert self.whole_query is not None, f"there are no queries at {self.site}"
        return self.segmented.part(self.segment, self.whole_query, self.tokens)

    @property
    def weight(self) -> Tensor:
        return self.frozen(self.site)[0]

    def frozen(self, site: Site) -> tuple[Tensor, Tensor]:
        weight, bias = self.backbone.frozen(self.layer, site)
        return weight.T, bias

    def initial_value(self, name: str) -> Tensor:
        return frozen_initial_values(self.segment.parameters.layout.method, self.backbone, self.layer, self.site)[name]

    def norm(self, h: Tensor) -> Tensor:
        return self.backbone.norm_of_sum(self.layer, self.site, h)

    def to_examples(self, v: Tensor) -> Tensor:
        return v.index_select(0, self.segmented.rows.owner[self._examples] - self.segment.start)

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
        rows = self._all_rows
        return self.segmented.part(self.segment, rows.real, rows.all_tokens)

    def update_buffer(self, name: str, value: Tensor) -> None:
        if self.training:
            self.segment.parameters.update_buffer(f"{self.layer}.{self.site}.{name}", value)

    def _at(self, name: str, h: Tensor | None, sites: tuple[Site, ...]) -> Tensor:
        """Returns the segment's part of h. Raises AssertionError if the tensor `name` is not defined at this site."""
        assert self.site in sites, f"{name} is not defined at {self.site}: only at {', '.join(sites)}"
        assert h is not None
        return self.segmented.part(self.segment, h, self.tokens)

    @property
    def _all_rows(self) -> Rows:
        """The packed rows, for operations that need all tokens. Raises AssertionError if h is of some tokens only."""
        assert self.tokens.index is None, (
            "the last layer computes only what heads read here: the method has to set reads_all_tokens"
        )
        return self.segmented.rows

    @property
    def _examples(self) -> slice:
        """The segment's examples among those of all rows."""
        return self.segmented.rows.examples_of(self.segment.start, self.segment.stop)
