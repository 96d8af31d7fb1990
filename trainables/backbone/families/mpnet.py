"""MPNet (Song et al. 2020): BERT's layers without token types, with positions counted from 2 and a bias by distance.

A bias is added to all attention scores, one number per head and range of distances. All layers share one table of them. The head
trains a dense layer with tanh of its own, as RoBERTa's; the base model's pooler is not used.
Trap: transformers always divides distances into 32 ranges, whatever the config says. Configs with another number are refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from trainables.backbone.families.bert import POOLER
from trainables.backbone.families.family import ClassificationHead, ConfigKeys, EmbeddingModules, ModelFamily
from trainables.methods.spec import BackboneTensor

RANGES = 32


@dataclass(frozen=True, kw_only=True)
class MPNetFamily(ModelFamily):
    """The fields of `ModelFamily`, and the path of the table [ranges of distances, heads] of the bias."""

    forward_pass: str = "trainables.backbone.mpnet_encoder:MPNetEncoder"
    bias_table: str = "encoder.relative_attention_bias"

    def _check(self, config: Mapping[str, Any]) -> None:
        super()._check(config)
        ranges = config.get("relative_attention_num_buckets", RANGES)
        if ranges != RANGES:
            raise ValueError(
                f"relative_attention_num_buckets = {ranges!r}: only {RANGES} is supported, because transformers' MPNet divides "
                "distances into as many ranges whatever its config says"
            )

    def _after_layers(self, config: Mapping[str, Any]) -> list[BackboneTensor]:
        shape = (RANGES, config[self.keys.heads])
        return [BackboneTensor(name=f"{self.bias_table}.weight", shape=shape, part="embeddings")]


MPNET = MPNetFamily(
    model="MPNetModel",
    prefix="mpnet",
    keys=ConfigKeys(token_types=None),
    embeddings=EmbeddingModules(token_types=None),
    layer="encoder.layer.{}.",
    maps={
        "attention.query": "attention.attn.q",
        "attention.key": "attention.attn.k",
        "attention.value": "attention.attn.v",
        "attention.dense": "attention.attn.o",
        "ffn.intermediate": "intermediate.dense",
        "ffn.dense": "output.dense",
    },
    norms={"attention.output": "attention.LayerNorm", "ffn.output": "output.LayerNorm"},
    first_position=2,
    pretrained_pooler=POOLER,
    head=ClassificationHead(activation="tanh", dense="classifier.dense", out="classifier.out_proj"),
)
