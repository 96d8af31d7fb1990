"""The forward pass of MPNet: that of BERT with a bias of the attention scores, by the distance between query and key.

Legend: L tokens of the longest example, H heads.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from trainables.backbone.attention import ScoreBias
from trainables.backbone.backbone import Backbone, EncoderPass
from trainables.backbone.families.mpnet import RANGES, MPNetFamily


class MPNetEncoder(Backbone):
    """The frozen encoder on one device."""

    def _score_bias(self, run: EncoderPass, layer: int) -> ScoreBias:
        bias = self._bias(run.rows.keys.shape[-1])
        return lambda query, key: bias[None, :, : query.shape[1]]  # heads read the first token

    def _bias(self, length: int) -> Tensor:
        """Returns the bias [H, L, L] of each key (last) for each query. It depends only on their distance."""
        assert isinstance(self.family, MPNetFamily)
        table: Any = self.module.get_submodule(self.family.bias_table)
        encoder: Any = self.module.get_submodule(self.family.bias_table.rpartition(".")[0])

        def ranges() -> Tensor:
            found: Tensor = encoder.relative_position_bucket(torch.arange(1 - length, length), RANGES)
            return found.to(self.device)

        line = table(self.cached(("ranges", length), ranges))  # [2 L - 1, H]
        # Windows of L distances, which start at 1 - L for the last query and at 0 for the first.
        windows: Tensor = line.T.unfold(-1, length, 1).flip(-2)
        return windows
