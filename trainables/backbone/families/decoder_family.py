"""The description of decoders of Llama's kind as data: RMS norms, rotary positions, a gated feed-forward part.

Legend: H heads of queries, G heads of keys and values, of which each serves H / G heads of queries, w width of a head.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from trainables.backbone.families.branch_norm_family import BranchNormFamily
from trainables.backbone.families.family import ClassificationHead, ConfigKeys, EmbeddingModules
from trainables.methods.spec import BackboneTensor, Shape, Site

MAPS: dict[Site, str] = {
    "attention.query": "self_attn.q_proj",
    "attention.key": "self_attn.k_proj",
    "attention.value": "self_attn.v_proj",
    "attention.dense": "self_attn.o_proj",
    "ffn.gate": "mlp.gate_proj",
    "ffn.intermediate": "mlp.up_proj",
    "ffn.dense": "mlp.down_proj",
}
# Scalings of rotary positions whose angles depend on a token's position alone.
ROTATIONS = ("default", "linear", "llama3", "yarn")
# Kinds of layers that are supported.
LAYER_KINDS = ("full_attention", "sliding_attention")
INPUTS: tuple[Site, ...] = ("attention.query", "attention.key", "attention.value")


@dataclass(frozen=True, kw_only=True)
class DecoderFamily(BranchNormFamily):
    """The fields of `BranchNormFamily`, with Llama's values, and what only decoders have. The head reads the last token."""

    forward_pass: str = "trainables.backbone.decoder:Decoder"
    prefix: str = "model"
    keys: ConfigKeys = field(
        default_factory=lambda: ConfigKeys(
            token_types=None, hidden_dropout="", head_dropout="", attention_dropout="attention_dropout"
        )
    )
    embeddings: EmbeddingModules = field(
        default_factory=lambda: EmbeddingModules(words="embed_tokens", positions="", token_types=None, norm="norm")
    )
    layer: str = "layers.{}."
    maps: Mapping[Site, str] = field(default_factory=lambda: MAPS)
    # The norm of each sub-layer's input, by the site of its output.
    norms: Mapping[Site, str] = field(
        default_factory=lambda: {"attention.output": "input_layernorm", "ffn.output": "post_attention_layernorm"}
    )
    head: ClassificationHead = field(default_factory=lambda: ClassificationHead(out="score", biases=False))
    # Maps that have biases in every model of the family, and the entry of config.json that gives biases to all of attention's.
    biased: tuple[Site, ...] = ()
    bias_key: str = "attention_bias"
    # Scalings of rotary positions that are supported.
    rotations: tuple[str, ...] = ROTATIONS
    # Entries of config.json with dropout rates that must be 0.
    no_dropout: tuple[str, ...] = ()
    # The values that transformers takes for entries that config.json lacks.
    defaults: Mapping[str, Any] = field(default_factory=dict)
    # Entries of config.json that are whole numbers if they are there.
    KEY_HEADS: ClassVar[str] = "num_key_value_heads"
    HEAD_WIDTH: ClassVar[str] = "head_dim"

    def shape(self, config: Mapping[str, Any]) -> Shape:
        """Returns the backbone's shape from the content of config.json. Raises ValueError if the model is not supported."""
        config = {**self.defaults, **config}
        self._check(config)
        keys, width, heads = self.keys, config[self.keys.width], config[self.keys.heads]
        w = config.get(self.HEAD_WIDTH) or width // heads
        key_heads = config.get(self.KEY_HEADS) or heads
        sizes = {"query": heads * w, "key": key_heads * w, "head": w}
        layers = config[keys.layers]
        tensors = (
            BackboneTensor(
                name=f"{self.embeddings.words}.weight", shape=(config[keys.vocabulary], width), part="embeddings"
            ),
            *(tensor for layer in range(layers) for tensor in self._layer(config, layer, sizes)),
            BackboneTensor(name=f"{self.embeddings.norm}.weight", shape=(width,), part="norm"),
        )
        return Shape(
            layers=layers,
            width=width,
            ffn=config[keys.ffn],
            heads=heads,
            query_width=sizes["query"],
            key_width=sizes["key"],
            gated="ffn.gate" in self.maps,
            norm_biases=False,
            norms_per_layer=len(self.norms) + len(self.output_norms),
            sums_normalized=bool(self.norms),
            positions=config[keys.positions],
            pooler=False,
            reads_last=True,
            dense_head=False,
            head_biases=self.head.biases,
            tensors=tensors,
            total=sum(tensor.size for tensor in tensors),
        )

    def dropout(self, config: Any) -> tuple[float, float, float]:
        """Returns the dropout rates in a pretrained model's config. Decoders drop out attention probabilities alone."""
        return 0.0, getattr(config, self.keys.attention_dropout, 0.0), 0.0

    def norm_paths(self, layers: int) -> list[str]:
        """Returns the module paths of all norms: those of inputs, the last one, those of outputs; without inputs' these first."""
        inputs, outputs = (
            [self.layer.format(i) + path for i in range(layers) for path in norms.values()]
            for norms in (self.norms, self.output_norms)
        )
        return [*inputs, self.embeddings.norm, *outputs] if inputs else [*outputs, self.embeddings.norm]

    def _layer(self, config: Mapping[str, Any], layer: int, sizes: Mapping[str, int]) -> list[BackboneTensor]:
        """Returns the tensors of a layer in the order of torch's `named_parameters`."""
        width, ffn, query, key = config[self.keys.width], config[self.keys.ffn], sizes["query"], sizes["key"]
        ends: dict[Site, tuple[int, int]] = {
            "attention.query": (width, query),
            "attention.key": (width, key),
            "attention.value": (width, key),
            "attention.dense": (query, width),
            "ffn.dense": (ffn, width),
        }
        biased = {*self.biased, *((*INPUTS, "attention.dense") if config.get(self.bias_key) else ())}
        whole = {"attention.query": query, "attention.key": key}
        vectors = [
            (path, whole[site] if self.norms_whole_maps else sizes["head"])
            for site, path in self.query_key_norms.items()
        ]
        found: list[tuple[str, tuple[int, ...]]] = []
        for path in dict.fromkeys(self.maps.values()):
            sites = [site for site in self.maps if self.maps[site] == path]
            if sites[0].startswith("ffn.") and vectors:
                found += [(f"{name}.weight", (size,)) for name, size in vectors]
                vectors = []
            into, out = ends.get(sites[0], (width, ffn))[0], sum(ends.get(site, (width, ffn))[1] for site in sites)
            found += [(f"{path}.weight", (out, into)), *([(f"{path}.bias", (out,))] if sites[0] in biased else [])]
        found += [(f"{path}.weight", (width,)) for path in self._declared_norms()]
        start = self.layer.format(layer)
        return [BackboneTensor(name=start + name, shape=size, part="layer", layer=layer) for name, size in found]

    def _declared_norms(self) -> list[str]:
        """Returns the paths of a layer's norms in the order in which the model declares them."""
        pairs = zip(*(list(norms.values()) for norms in (self.norms, self.output_norms) if norms), strict=True)
        return [path for pair in pairs for path in pair]

    def _check(self, config: Mapping[str, Any]) -> None:
        """Raise ValueError if a size is missing or invalid."""
        keys = self.keys
        for key in (*self.keys.sizes, self.KEY_HEADS, self.HEAD_WIDTH):
            size = config.get(key)
            if size is None and key in (self.KEY_HEADS, self.HEAD_WIDTH):
                continue
            if isinstance(size, bool) or not isinstance(size, int) or size < 1:
                raise ValueError(f"{key} = {size!r}: must be a whole number of at least 1")
        heads, shared = config[keys.heads], config.get(self.KEY_HEADS) or config[keys.heads]
        if heads % shared:
            raise ValueError(f"{keys.heads} = {heads} is no multiple of {self.KEY_HEADS} = {shared}")
        if not config.get(self.HEAD_WIDTH) and config[keys.width] % heads:
            raise ValueError(f"{keys.width} = {config[keys.width]} is no multiple of {keys.heads} = {heads}")
        if config.get("mlp_bias"):
            raise ValueError("biases in the feed-forward part (mlp_bias) are not supported")
        for key in self.no_dropout:
            if config.get(key):
                raise ValueError(
                    f"{key} = {config[key]!r}: only 0 is supported; set it to 0 in config.json and train with Recipe(dropout=...)"
                )
        if config.get("use_bidirectional_attention"):
            raise ValueError("attention to later tokens (use_bidirectional_attention) is not supported")
        kinds = config.get("layer_types") or []
        if other := sorted({*kinds} - {*LAYER_KINDS}):
            raise ValueError(
                f"layers of type {', '.join(other)} (layer_types) are not supported, only {' and '.join(LAYER_KINDS)}"
            )
        if kinds and len(kinds) != config[keys.layers]:
            raise ValueError(f"layer_types lists {len(kinds)} layers, and {keys.layers} = {config[keys.layers]}")
        parameters = config.get("rope_parameters") or {}
        for each in [parameters[kind] or {} for kind in LAYER_KINDS if kind in parameters] or [parameters]:
            rotation = {**config, **(config.get("rope_scaling") or {}), **each}
            kind = rotation.get("rope_type", rotation.get("type", "default"))
            if kind not in self.rotations or (rotation.get("partial_rotary_factor") or 1) != 1:
                # The angles of others depend on the longest text of a step, so a trial's results would depend on other trials.
                raise ValueError(f"rotary positions of type {kind!r}, or of a part of each head, are not supported")
