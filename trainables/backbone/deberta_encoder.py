"""The forward pass of DeBERTa-v3: that of BERT with disentangled attention.

    score of key j for query i = (q_i . k_j + q_i . K(d) + k_j . Q(d)) / sqrt(3 w),    d = the embedding of the distance i - j

Q and K are the layer's query and key maps with what the methods change in them, so that they differ between trials: their rows of
2 L - 1 distances are handed to the methods like rows of tokens.
Legend: K trials (rows), B examples of all rows, L tokens of the longest example, H heads, D width, w = D / H.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from trainables.backbone.attention import ScoreBias
from trainables.backbone.backbone import Backbone, EncoderPass
from trainables.backbone.families.deberta import DebertaFamily
from trainables.backbone.packing import TokenSelection
from trainables.methods.spec import Site


class DebertaEncoder(Backbone):
    """The frozen encoder on one device."""

    @property
    def score_scale(self) -> float:
        """The factor of all three products."""
        return (3 * self.shape.width / self.shape.heads) ** -0.5

    def _score_bias(self, run: EncoderPass, layer: int) -> ScoreBias:
        rows, H, L = run.rows, self.shape.heads, run.rows.keys.shape[-1]
        each = self._distances(L)
        # By distance i - j in ascending order for the keys, whose skewed rows are read along i, and in descending order for the
        # queries, whose rows are read along j.
        positions_query = self._mapped(run, layer, "attention.query", each)
        positions_key = self._mapped(run, layer, "attention.key", each).flip(1)

        def of_examples(mapped: Tensor) -> Tensor:
            """[K, 2 L - 1, D] -> [B H, w, 2 L - 1]."""
            heads = mapped.unflatten(-1, (H, -1)).permute(0, 2, 3, 1)
            return heads.index_select(0, rows.owner).flatten(0, 1)

        def bias(query: Tensor, key: Tensor) -> Tensor:
            with self.products():
                to_positions = query @ of_examples(positions_key)
                from_positions = key @ of_examples(positions_query)
            every = query.shape[1] == L
            first = skewed(to_positions) if every else to_positions[..., L - 1 :]
            second = skewed(from_positions).transpose(1, 2)[:, : query.shape[1]]
            return (self.score_scale * (first + second)).view(rows.batch, H, -1, L)

        return bias

    def _distances(self, length: int) -> Tensor:
        """Returns the embeddings [2 L - 1, D] of the distances 1 - L to L - 1."""
        family: Any = self.family
        assert isinstance(family, DebertaFamily)
        table: Any = self.module.get_submodule(family.distances)
        norm: Any = self.module.get_submodule(family.distances_norm)
        index = self.cached(("distances", length), lambda: self._ranges(length).to(self.device))
        return F.embedding(index, norm(table.weight))

    def _ranges(self, length: int) -> Tensor:
        """Returns the index [2 L - 1] into the table for each distance."""
        from transformers.models.deberta_v2.modeling_deberta_v2 import make_log_bucket_position

        config: Any = self.module.config
        span, farthest = config.position_buckets, config.max_relative_positions
        farthest = config.max_position_embeddings if farthest < 1 else farthest
        ranges: Tensor = make_log_bucket_position(torch.arange(1 - length, length), span, farthest)
        return (ranges.long() + span).clamp(0, 2 * span - 1)

    def _mapped(self, run: EncoderPass, layer: int, site: Site, x: Tensor) -> Tensor:
        """Returns each trial's query or key map of the distances' embeddings x [2 L - 1, D], as [K, 2 L - 1, D]."""
        K, n = len(run.rows.sizes), len(x)
        h = self._product(self.map_at(layer, site), self._narrow(x))
        # An index, because these are not the tokens of the rows: a formula that needs those raises an error.
        tokens = TokenSelection(starts=list(range(0, K * n + 1, n)), index=run.rows.owner)
        h, x = (each.expand(K, -1, -1).reshape(1, K * n, -1) for each in (h, x))
        return run.act(layer, site, h, tokens, x=x).view(K, n, -1)


def skewed(x: Tensor) -> Tensor:
    """Returns [b, L, L] from x [b, L, 2 L - 1]: of row i the L columns from L - 1 - i on. Only views, hence no gather."""
    L = x.shape[1]
    if L == 1:
        return x
    return x.flatten(1)[:, L - 1 : L - 1 + L * (2 * L - 2)].view(-1, L, 2 * L - 2)[..., :L]
