"""The forward pass of ModernBERT: a decoder's layers, but tokens attend to both sides, in most layers to near tokens only.

Legend: as in backbone.py, and w width of a head. Norms are numbered as in a decoder, but norm 0 belongs to the embeddings: its
output is what layer 0 reads and what the residual connection adds.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from trainables.backbone.backbone import Backbone, EncoderPass
from trainables.backbone.decoder import Decoder


class ModernBertEncoder(Decoder):
    """The frozen encoder on one device."""

    causal = False

    def normalize(self, number: int, h: Tensor, affine: bool = True) -> Tensor:
        """Returns h [1, n, D] after the pretrained LayerNorm with this number. `affine`: with its gain."""
        return Backbone.normalize(self, number, h, affine)

    def _embed(self, run: EncoderPass) -> Tensor:
        everything = run.rows.all_tokens
        h = run.norm(0, run.insert_virtual_tokens(self.words(run.rows.input_ids)), everything)
        return run.drop(0, h, everything)

    def _attention_input(self, run: EncoderPass, layer: int, x: Tensor) -> Tensor:
        return x if layer == 0 else super()._attention_input(run, layer, x)

    def _window(self, layer: int) -> int | None:
        """Returns the least distance of tokens that a layer's tokens do not attend to; None if they attend to all."""
        local = self._config.layer_types[layer] == "sliding_attention"
        return self._config.local_attention // 2 + 1 if local else None

    @property
    def _config(self) -> Any:
        return self.module.config
