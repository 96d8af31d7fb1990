"""GPT-2 (Radford et al. 2019): LayerNorms, learned positions, no gate, biases; query, key and value maps are one module.

Traps: its modules hold weights as [in, out]; `n_inner` may be missing and is four times the width then.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from trainables.backbone.families.decoder_family import DecoderFamily
from trainables.backbone.families.family import ConfigKeys, EmbeddingModules
from trainables.methods.spec import BackboneTensor, Shape

UNSUPPORTED = {
    "scale_attn_weights": True,
    "scale_attn_by_inverse_layer_idx": False,
    "add_cross_attention": False,
}


@dataclass(frozen=True, kw_only=True)
class Gpt2Family(DecoderFamily):
    """The fields of `DecoderFamily`. Only the tensors and their order differ."""

    def shape(self, config: Mapping[str, Any]) -> Shape:
        """Returns the backbone's shape from the content of config.json. Raises ValueError if the model is not supported."""
        for key, value in UNSUPPORTED.items():
            if config.get(key, value) != value:
                raise ValueError(f"{key} = {config[key]!r}: only {value!r} is supported")
        if config.get("embd_pdrop", 0.1) != config.get("resid_pdrop", 0.1):
            raise ValueError(
                f"embd_pdrop = {config.get('embd_pdrop', 0.1)!r} and resid_pdrop = {config.get('resid_pdrop', 0.1)!r}: "
                "both dropout rates must be equal"
            )
        if not config.get("n_inner") and isinstance(config.get("n_embd"), int):
            config = {**config, "n_inner": 4 * config["n_embd"]}
        found = super().shape(config)
        words, *layers, last = found.tensors
        positions = BackboneTensor(name="wpe.weight", shape=(config["n_positions"], found.width), part="embeddings")
        bias = BackboneTensor(name="ln_f.bias", shape=(found.width,), part="norm")
        tensors = (words, positions, *layers, last, bias)
        return replace(
            found, gated=False, norm_biases=True, tensors=tensors, total=sum(tensor.size for tensor in tensors)
        )

    def dropout(self, config: Any) -> tuple[float, float, float]:
        """Returns the dropout rates in a pretrained model's config: of hidden states and attention probabilities."""
        return config.resid_pdrop, config.attn_pdrop, 0.0

    def _layer(self, config: Mapping[str, Any], layer: int, sizes: Mapping[str, int]) -> list[BackboneTensor]:
        width, ffn = config["n_embd"], config["n_inner"]
        found: list[tuple[str, tuple[int, ...]]] = [
            ("ln_1", (width,)),
            ("attn.c_attn", (width, 3 * width)),
            ("attn.c_proj", (width, width)),
            ("ln_2", (width,)),
            ("mlp.c_fc", (width, ffn)),
            ("mlp.c_proj", (ffn, width)),
        ]
        start = self.layer.format(layer)
        return [
            BackboneTensor(name=f"{start}{path}.{kind}", shape=size, part="layer", layer=layer)
            for path, shape in found
            for kind, size in (("weight", shape), ("bias", shape[-1:]))
        ]


GPT2 = Gpt2Family(
    model="GPT2Model",
    prefix="transformer",
    keys=ConfigKeys(
        layers="n_layer",
        width="n_embd",
        ffn="n_inner",
        heads="n_head",
        positions="n_positions",
        token_types=None,
        activation="activation_function",
        hidden_dropout="resid_pdrop",
        attention_dropout="attn_pdrop",
        head_dropout="",
    ),
    embeddings=EmbeddingModules(words="wte", positions="wpe", token_types=None, norm="ln_f"),
    layer="h.{}.",
    maps={
        "attention.query": "attn.c_attn",
        "attention.key": "attn.c_attn",
        "attention.value": "attn.c_attn",
        "attention.dense": "attn.c_proj",
        "ffn.intermediate": "mlp.c_fc",
        "ffn.dense": "mlp.c_proj",
    },
    norms={"attention.output": "ln_1", "ffn.output": "ln_2"},
)
