"""The description of models whose norms are inside the branches that the residual connection adds: decoders, and ModernBERT.

What `Decoder` computes in other ways for one family than for another is a field here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from trainables.backbone.families.family import ModelFamily
from trainables.methods.spec import Site


@dataclass(frozen=True, kw_only=True)
class BranchNormFamily(ModelFamily):
    """The fields of `ModelFamily`, with the norms of the sub-layers' inputs as `norms`, and what differs between families."""

    # The norms of sub-layers' outputs before the residual is added, by the site of that output. Without norms of inputs, no norm
    # follows the sum with the residual.
    output_norms: Mapping[Site, str] = field(default_factory=dict)
    # What a norm multiplies with: its parameter plus this.
    gain_offset: float = 0.0
    # RMS norms of queries and keys before the rotation: of each head, or of all heads together.
    query_key_norms: Mapping[Site, str] = field(default_factory=dict)
    norms_whole_maps: bool = False
    # The entry of config.json that lists for each layer whether it rotates queries and keys; "": all layers do.
    rotated_key: str = ""
    # Whether the layers with a window have rotary frequencies of their own.
    rotates_by_kind: bool = False
    # Entries of config.json: the number whose root the scores are divided by, instead of a head's width, and their soft cap.
    scale_key: str = ""
    soft_cap_key: str = ""

    def output_norm_number(self, layer: int, sublayer: int, layers: int) -> int:
        """Returns the number of the norm of a sub-layer's output (0: attention, 1: feed-forward) in the order of `norm_paths`."""
        return (2 * layers + 1 if self.norms else 0) + 2 * layer + sublayer
