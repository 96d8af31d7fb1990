"""Gemma 2 (Gemma Team 2024) and the text models of Gemma 3 (Gemma Team 2025).

Norms of each sub-layer's input and output, whose gains are 1 + w; embeddings times the root of the width (transformers' module
of the embeddings does that); GELU in the gate; a window in some layers; scores divided by the root of a number of the config.
Gemma 2 caps scores softly. Gemma 3 normalises heads instead, and its layers with a window have rotary frequencies of their own.
"""

from dataclasses import replace

from trainables.backbone.families.decoder_family import DecoderFamily
from trainables.backbone.families.family import ConfigKeys

GEMMA2 = DecoderFamily(
    model="Gemma2Model",
    keys=ConfigKeys(
        token_types=None,
        activation="hidden_activation",
        hidden_dropout="",
        head_dropout="",
        attention_dropout="attention_dropout",
    ),
    norms={"attention.output": "input_layernorm", "ffn.output": "pre_feedforward_layernorm"},
    output_norms={"attention.output": "post_attention_layernorm", "ffn.output": "post_feedforward_layernorm"},
    gain_offset=1.0,
    scale_key="query_pre_attn_scalar",
    soft_cap_key="attn_logit_softcapping",
    defaults={"num_key_value_heads": 4, "head_dim": 256},
)
GEMMA3 = replace(
    GEMMA2,
    model="Gemma3TextModel",
    query_key_norms={"attention.query": "self_attn.q_norm", "attention.key": "self_attn.k_norm"},
    rotates_by_kind=True,
    soft_cap_key="",
)
