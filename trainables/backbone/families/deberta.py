"""DeBERTa-v3 (He et al. 2021): BERT's layers with disentangled attention instead of positions in the embeddings.

A table has an embedding for each range of distances between query and key; near distances have one each, far ones share them. All
layers use the same table after a LayerNorm, and send it through their own query and key maps (`deberta_encoder.py`). Whatever a
method changes in these maps therefore also acts on the embeddings of distances, as it does in peft. There are no token types. The
head trains a dense layer with GELU of its own, whose input is not dropped out.
Traps: the model type is "deberta-v2", which the second version has, too; its other features are refused. In training,
transformers drops out the embeddings of distances as well, which is not done here. The LayerNorm of the table is not among those
that methods train.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from trainables.backbone.families.bert import NORMS
from trainables.backbone.families.family import ClassificationHead, ConfigKeys, EmbeddingModules, ModelFamily
from trainables.methods.spec import BackboneTensor, Shape

# Entries of config.json with the only values that are supported, and the values that transformers assumes where they are missing.
ONLY: dict[str, tuple[tuple[Any, ...], Any]] = {
    "relative_attention": ((True,), False),
    "position_biased_input": ((False,), True),
    "share_att_key": ((True,), False),
    "norm_rel_ebd": (("layer_norm",), "none"),
    "type_vocab_size": ((0,), 0),
    "conv_kernel_size": ((0, None), 0),
    "pooler_dropout": ((0,), 0),
    "pooler_hidden_act": (("gelu",), "gelu"),
}


@dataclass(frozen=True, kw_only=True)
class DebertaFamily(ModelFamily):
    """The fields of `ModelFamily`, and the paths of the embeddings of distances and of the LayerNorm after them."""

    forward_pass: str = "trainables.backbone.deberta_encoder:DebertaEncoder"
    distances: str = "encoder.rel_embeddings"
    distances_norm: str = "encoder.LayerNorm"

    def shape(self, config: Mapping[str, Any]) -> Shape:
        return replace(super().shape(config), maps_distances=True)

    def dropout(self, config: Any) -> tuple[float, float, float]:
        hidden, attention, head = super().dropout(config)
        own = getattr(config, "cls_dropout", None)
        return hidden, attention, head if own is None else own

    def _check(self, config: Mapping[str, Any]) -> None:
        super()._check(config)
        for key, (allowed, missing) in ONLY.items():
            value = config.get(key, missing)
            if value not in allowed:
                raise ValueError(f"{key} = {value!r}: only {allowed[0]!r}, as in DeBERTa-v3, is supported")
        kinds = config.get("pos_att_type") or []
        found = kinds.split("|") if isinstance(kinds, str) else kinds
        if sorted(kind.strip() for kind in found) != ["c2p", "p2c"]:
            raise ValueError(f"pos_att_type = {kinds!r}: only 'p2c|c2p', as in DeBERTa-v3, is supported")
        buckets = config.get("position_buckets", -1)
        if isinstance(buckets, bool) or not isinstance(buckets, int) or buckets < 4:
            raise ValueError(
                f"position_buckets = {buckets!r}: must be a whole number of at least 4; DeBERTa-v3 has 256"
            )
        width = config[self.keys.width]
        for key in ("embedding_size", "pooler_hidden_size"):
            if config.get(key, width) != width:
                raise ValueError(f"{key} = {config[key]!r}: must be {self.keys.width} = {width}")
        if config.get("attention_head_size", width // config[self.keys.heads]) * config[self.keys.heads] != width:
            raise ValueError("attention_head_size: must be hidden_size / num_attention_heads")

    def _after_layers(self, config: Mapping[str, Any]) -> list[BackboneTensor]:
        width = config[self.keys.width]
        table = (2 * config["position_buckets"], width)
        return [
            BackboneTensor(name=f"{self.distances}.weight", shape=table, part="embeddings"),
            *(
                BackboneTensor(name=f"{self.distances_norm}.{kind}", shape=(width,), part="embeddings")
                for kind in ("weight", "bias")
            ),
        ]


DEBERTA = DebertaFamily(
    model="DebertaV2Model",
    prefix="deberta",
    keys=ConfigKeys(token_types=None),
    embeddings=EmbeddingModules(positions=None, token_types=None),
    layer="encoder.layer.{}.",
    maps={
        "attention.query": "attention.self.query_proj",
        "attention.key": "attention.self.key_proj",
        "attention.value": "attention.self.value_proj",
        "attention.dense": "attention.output.dense",
        "ffn.intermediate": "intermediate.dense",
        "ffn.dense": "output.dense",
    },
    norms=NORMS,
    head=ClassificationHead(activation="gelu", drops_input=False, dense="pooler.dense"),
)
