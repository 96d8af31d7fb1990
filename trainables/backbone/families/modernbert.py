"""ModernBERT (Warner et al. 2024): norms before the sub-layers, rotary positions, local attention, a gated feed-forward part.

Layer 0 has no norm before its attention, because the embeddings end with one. Query, key and value maps are one module, gate and
intermediate map another one: a site's map is a part of its module's outputs. In most layers a token attends only to those at most
half a window away, and its position is rotated by other angles than in the layers with full attention. There are no biases
except in the classification head's last map. The head reads the first token or the mean of all, as the config says; its dense
layer and norm are a part of the pretrained files (from masked language modelling), and every trial starts from these.
Traps: the config of the published models says "mean". Their dropout rates are zero; a recipe's rate applies after the embeddings,
to attention probabilities and to outputs of sub-layers, not inside the feed-forward part.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from trainables.backbone.families.branch_norm_family import BranchNormFamily
from trainables.backbone.families.family import (
    SUBLAYERS,
    ClassificationHead,
    ConfigKeys,
    EmbeddingModules,
)
from trainables.methods.spec import BackboneTensor, Shape, Site

UNSUPPORTED_BIASES = ("attention_bias", "mlp_bias", "norm_bias", "classifier_bias")
UNSUPPORTED_DROPOUT = ("embedding_dropout", "attention_dropout", "mlp_dropout")


@dataclass(frozen=True, kw_only=True)
class ModernBertFamily(BranchNormFamily):
    """The fields of `BranchNormFamily`, and the path of the norm after the last layer."""

    forward_pass: str = "trainables.backbone.modernbert_encoder:ModernBertEncoder"
    last_norm: str = "final_norm"
    POOLING: ClassVar[str] = "classifier_pooling"

    def shape(self, config: Mapping[str, Any]) -> Shape:
        return replace(
            super().shape(config),
            gated=True,
            norm_biases=False,
            reads_mean=config.get(self.POOLING, "cls") == "mean",
        )

    def dropout(self, config: Any) -> tuple[float, float, float]:
        """Returns the dropout rates in a pretrained model's config; those before the head are zero (`_check`)."""
        return 0.0, 0.0, config.classifier_dropout

    def norm_paths(self, layers: int) -> list[str]:
        """Returns the module paths of all norms: that of the embeddings, those in the layers, the last one."""
        of_layers = [self.layer.format(i) + self.norms[site] for i in range(layers) for site in SUBLAYERS]
        return [self.embeddings.norm, *of_layers[1:], self.last_norm]

    def _check(self, config: Mapping[str, Any]) -> None:
        super()._check(config)
        for key in UNSUPPORTED_BIASES:
            if config.get(key):
                raise ValueError(
                    f"{key} = {config[key]!r}: not supported, ModernBERT's published models have no biases"
                )
        for key in UNSUPPORTED_DROPOUT:
            if config.get(key):
                raise ValueError(
                    f"{key} = {config[key]!r}: only 0 is supported; set it to 0 in config.json and train with "
                    "Recipe(dropout=...), which applies after the embeddings and the sub-layers"
                )
        if config.get(self.POOLING, "cls") not in ("cls", "mean"):
            raise ValueError(f"{self.POOLING} = {config[self.POOLING]!r}: only 'cls' and 'mean' are supported")
        if config.get("classifier_activation", "gelu") != "gelu":
            raise ValueError(f"classifier_activation = {config['classifier_activation']!r}: only 'gelu' is supported")
        rotations = config.get("rope_parameters") or {}
        for rotation in (config.get("rope_scaling") or {}, *(each or {} for each in rotations.values())):
            kind = rotation.get("rope_type", rotation.get("type", "default"))
            if kind != "default":
                raise ValueError(f"rotary positions of type {kind!r}: only 'default' is supported")

    def _layers(self, config: Mapping[str, Any]) -> list[BackboneTensor]:
        width, ffn, found = config[self.keys.width], config[self.keys.ffn], []
        ends: dict[Site, tuple[int, int]] = {"ffn.gate": (ffn, width), "ffn.intermediate": (ffn, width)}
        ends["ffn.dense"] = (width, ffn)
        for layer in range(config[self.keys.layers]):
            start = self.layer.format(layer)
            for sublayer, maps in SUBLAYERS.items():
                shapes: dict[str, tuple[int, ...]] = {}
                if (layer, sublayer) != (0, "attention.output"):
                    shapes[self.norms[sublayer]] = (width,)
                for site in maps:
                    out, into = ends.get(site, (width, width))
                    shapes[self.maps[site]] = (len(self.sites_in_module(site)) * out, into)
                found += [
                    BackboneTensor(name=f"{start}{path}.weight", shape=shape, part="layer", layer=layer)
                    for path, shape in shapes.items()
                ]
        return found

    def _embeddings(self, config: Mapping[str, Any]) -> list[BackboneTensor]:
        words, norm = super()._embeddings(config)[:2]
        return [words, norm]

    def _after_layers(self, config: Mapping[str, Any]) -> list[BackboneTensor]:
        return [BackboneTensor(name=f"{self.last_norm}.weight", shape=(config[self.keys.width],), part="norm")]


MODERNBERT = ModernBertFamily(
    model="ModernBertModel",
    prefix="model",
    keys=ConfigKeys(
        token_types=None,
        activation="hidden_activation",
        attention_dropout="attention_dropout",
        hidden_dropout="embedding_dropout",
        head_dropout="classifier_dropout",
    ),
    embeddings=EmbeddingModules(
        words="embeddings.tok_embeddings",
        positions=None,
        token_types=None,
        norm="embeddings.norm",
        declared=("words", "norm"),
    ),
    layer="layers.{}.",
    maps={
        "attention.query": "attn.Wqkv",
        "attention.key": "attn.Wqkv",
        "attention.value": "attn.Wqkv",
        "attention.dense": "attn.Wo",
        "ffn.gate": "mlp.Wi",
        "ffn.intermediate": "mlp.Wi",
        "ffn.dense": "mlp.Wo",
    },
    rotates_by_kind=True,
    norms={"attention.output": "attn_norm", "ffn.output": "mlp_norm"},
    head=ClassificationHead(
        activation="gelu",
        drops_input=False,
        dense="head.dense",
        dense_biases=False,
        norm="head.norm",
        starts_pretrained=True,
    ),
)
