"""A model family: the description of one `model_type` of transformers as data.

All other code gets the names of config entries, shapes, module paths and the classification head from the family. This module
imports neither torch nor transformers, because a plan needs shapes before these are loaded.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from trainables.methods.spec import BackboneTensor, Shape, Site

Activation = Literal["tanh", "gelu", "relu"]
# The sub-layers of a layer, named by the site of their output, in order of computation, each with the sites of its linear maps.
# A family without a gated feed-forward part has no "ffn.gate".
SUBLAYERS: dict[Site, tuple[Site, ...]] = {
    "attention.output": ("attention.query", "attention.key", "attention.value", "attention.dense"),
    "ffn.output": ("ffn.gate", "ffn.intermediate", "ffn.dense"),
}


@dataclass(frozen=True, kw_only=True)
class ConfigKeys:
    """Names of the entries of config.json that give the sizes, the activation and the dropout rates of a model."""

    layers: str = "num_hidden_layers"
    width: str = "hidden_size"
    ffn: str = "intermediate_size"
    heads: str = "num_attention_heads"
    vocabulary: str = "vocab_size"
    positions: str = "max_position_embeddings"
    # None: the family has no token types.
    token_types: str | None = "type_vocab_size"
    # The width of the embeddings; None: the family has no such entry, and it equals `width`.
    embedding_width: str | None = None
    activation: str = "hidden_act"
    hidden_dropout: str = "hidden_dropout_prob"
    attention_dropout: str = "attention_probs_dropout_prob"
    head_dropout: str = "hidden_dropout_prob"

    @property
    def sizes(self) -> list[str]:
        """Names of the entries that must be whole numbers of at least 1."""
        names = [self.width, self.layers, self.heads, self.ffn, self.vocabulary, self.positions]
        return names + [name for name in (self.token_types, self.embedding_width) if name]


@dataclass(frozen=True, kw_only=True)
class EmbeddingModules:
    """Paths of the modules that compute the embeddings. A LayerNorm follows their sum."""

    words: str = "embeddings.word_embeddings"
    # None: positions enter the attention alone.
    positions: str | None = "embeddings.position_embeddings"
    # None: the family has no token types.
    token_types: str | None = "embeddings.token_type_embeddings"
    norm: str = "embeddings.LayerNorm"
    # The fields above in the order in which the model declares its parameters.
    declared: tuple[str, ...] = ("words", "positions", "token_types", "norm")


@dataclass(frozen=True, kw_only=True)
class ClassificationHead:
    """The family's own head on the token that it reads: a dense layer, activation, dropout and a linear map.

    A head without `pooler` and `dense` is the linear map alone, and its activation is not used.
    """

    activation: Activation = "tanh"
    # Path of the dense layer (the pooler) if it is pretrained. None: each trial trains a dense layer of its own.
    pooler: str | None = None
    # Whether dropout is also applied before the dense layer, if this is not pretrained.
    drops_input: bool = True
    # Paths in transformers' model for sequence classification: of a dense layer that is not pretrained, and of the linear map.
    dense: str | None = None
    out: str = "classifier"
    # Whether the linear map has biases, and whether the dense layer has.
    biases: bool = True
    dense_biases: bool = True
    # Path of a LayerNorm without biases after the activation; None: there is none.
    norm: str | None = None
    # Whether dense layer and norm start from the tensors that the model's files have under these paths, if they have them.
    starts_pretrained: bool = False


@dataclass(frozen=True, kw_only=True)
class ModelFamily:
    """Config entries, modules, norm order and head of one model type. Paths are those in transformers' base model."""

    # Class name of transformers' base model, and the prefix that its tensors' names have in files of models with a head.
    model: str
    prefix: str
    keys: ConfigKeys = field(default_factory=ConfigKeys)
    embeddings: EmbeddingModules = field(default_factory=EmbeddingModules)
    # Path of a layer, with {} for its number. Below it: linear maps by the site of their output, LayerNorms by sub-layer.
    layer: str
    maps: Mapping[Site, str]
    norms: Mapping[Site, str]
    # The class of the forward pass, by its name, because a plan must not import torch.
    forward_pass: str = "trainables.backbone.backbone:Backbone"
    # Sub-layers whose output is dropped out before the residual is added.
    dropped_outputs: tuple[Site, ...] = tuple(SUBLAYERS)
    # Index of the first token's position embedding; in RoBERTa it is the padding index + 1.
    first_position: int = 0
    head: ClassificationHead
    # Path of the dense layer that the pretrained base model has after its encoder, whether or not the head uses it. Its
    # parameters are included in `Shape.total`.
    pretrained_pooler: str | None = None

    def shape(self, config: Mapping[str, Any]) -> Shape:
        """Returns the backbone's shape from the content of config.json. Raises ValueError if the model is not supported."""
        self._check(config)
        keys, width = self.keys, config[self.keys.width]
        tensors = (
            *self._embeddings(config),
            *self._layers(config),
            *self._after_layers(config),
            *_linear(self.head.pooler, width, width, "pooler"),
        )
        unused = _linear(self.pretrained_pooler, width, width, "pooler") if not self.head.pooler else ()
        return Shape(
            layers=config[keys.layers],
            width=width,
            ffn=config[keys.ffn],
            heads=config[keys.heads],
            query_width=width,
            key_width=width,
            gated=False,
            norm_biases=True,
            positions=config[keys.positions] - self.first_position,
            pooler=self.head.pooler is not None,
            reads_last=False,
            dense_head=self.head.dense is not None,
            head_biases=self.head.biases,
            dense_biases=self.head.dense_biases,
            head_norm=self.head.norm is not None,
            tensors=tensors,
            total=sum(t.size for t in (*tensors, *unused)),
        )

    def dropout(self, config: Any) -> tuple[float, float, float]:
        """Returns the dropout rates in a pretrained model's config: of hidden states, attention probabilities and the head."""
        keys = self.keys
        hidden, attention, head = (
            getattr(config, key) for key in (keys.hidden_dropout, keys.attention_dropout, keys.head_dropout)
        )
        return hidden, attention, head

    def map_path(self, layer: int, site: Site) -> str:
        """Returns the module path of the linear map at whose output the site is."""
        return self.layer.format(layer) + self.maps[site]

    def sites_in_module(self, site: Site) -> list[Site]:
        """Returns the sites whose maps are in the same module as that at `site`, in the order of its outputs (and of `maps`)."""
        return [other for other, path in self.maps.items() if path == self.maps[site]]

    @property
    def fused(self) -> set[Site]:
        """The sites whose maps are parts of a module, which several maps have in common."""
        return {site for site in self.maps if len(self.sites_in_module(site)) > 1}

    def norm_paths(self, layers: int) -> list[str]:
        """Returns the module paths of all LayerNorms: first that of the embeddings, then two per layer."""
        of_layers = [self.layer.format(i) + self.norms[site] for i in range(layers) for site in SUBLAYERS]
        return [self.embeddings.norm, *of_layers]

    def _check(self, config: Mapping[str, Any]) -> None:
        """Raise ValueError if a size is missing or invalid, or the model has a feature that the forward pass lacks."""
        for key in self.keys.sizes:
            size = config.get(key)
            if isinstance(size, bool) or not isinstance(size, int) or size < 1:
                raise ValueError(f"{key} = {size!r}: must be a whole number of at least 1")
        width, heads, embedding = self.keys.width, self.keys.heads, self.keys.embedding_width
        if config[width] % config[heads]:
            raise ValueError(f"{width} = {config[width]} is no multiple of {heads} = {config[heads]}")
        if config.get("is_decoder") or config.get("position_embedding_type", "absolute") != "absolute":
            raise ValueError("only encoders with absolute positions are supported")
        if embedding and config[embedding] != config[width]:
            raise ValueError(
                f"{embedding} = {config[embedding]} and {width} = {config[width]}: a projection between embeddings and layers "
                "is not supported, both must be equal"
            )

    def _embeddings(self, config: Mapping[str, Any]) -> list[BackboneTensor]:
        keys, modules, width = self.keys, self.embeddings, config[self.keys.width]
        found = {
            "words": _table(modules.words, config[keys.vocabulary], width),
            "positions": _table(modules.positions, config[keys.positions], width),
            "token_types": _table(modules.token_types, config[keys.token_types], width) if keys.token_types else [],
            "norm": _norm(modules.norm, width, "embeddings"),
        }
        return [tensor for name in modules.declared for tensor in found[name]]

    def _layers(self, config: Mapping[str, Any]) -> list[BackboneTensor]:
        width, ffn, found = config[self.keys.width], config[self.keys.ffn], []
        ends: dict[Site, tuple[int, int]] = {"ffn.intermediate": (width, ffn), "ffn.dense": (ffn, width)}
        for layer in range(config[self.keys.layers]):
            for sublayer, maps in SUBLAYERS.items():
                for site in (site for site in maps if site in self.maps):
                    into, out = ends.get(site, (width, width))
                    found += _linear(self.map_path(layer, site), into, out, "layer", layer)
                found += _norm(self.layer.format(layer) + self.norms[sublayer], width, "layer", layer)
        return found

    def _after_layers(self, config: Mapping[str, Any]) -> list[BackboneTensor]:
        """Returns the tensors that the model declares between its layers and the pooler."""
        return []


Part = Literal["embeddings", "layer", "pooler"]


def _table(path: str | None, rows: int, width: int) -> list[BackboneTensor]:
    return [] if path is None else [BackboneTensor(name=f"{path}.weight", shape=(rows, width), part="embeddings")]


def _linear(path: str | None, into: int, out: int, part: Part, layer: int | None = None) -> list[BackboneTensor]:
    if path is None:
        return []
    return [
        BackboneTensor(name=f"{path}.weight", shape=(out, into), part=part, layer=layer),
        BackboneTensor(name=f"{path}.bias", shape=(out,), part=part, layer=layer),
    ]


def _norm(path: str, width: int, part: Part, layer: int | None = None) -> list[BackboneTensor]:
    return [
        BackboneTensor(name=f"{path}.{kind}", shape=(width,), part=part, layer=layer) for kind in ("weight", "bias")
    ]


def checked_family(model_type: str, found: Any) -> ModelFamily:
    """Return `found` if it can be the family of this `model_type`. Raises TypeError."""
    if not isinstance(found, ModelFamily):
        raise TypeError(f"the model family {model_type!r} must be a ModelFamily of trainables.backbone.families.family")
    return found
