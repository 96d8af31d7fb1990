"""Phi-3 (Abdin et al. 2024): Llama with query, key and value maps in one module, and gate and intermediate map in another one.

Trap: its config may say "yarn" or "su" where its rotations depend on the length of the text ("longrope"), which is not supported.
"""

from trainables.backbone.families.decoder_family import DecoderFamily

PHI3 = DecoderFamily(
    model="Phi3Model",
    maps={
        "attention.dense": "self_attn.o_proj",
        "attention.query": "self_attn.qkv_proj",
        "attention.key": "self_attn.qkv_proj",
        "attention.value": "self_attn.qkv_proj",
        "ffn.gate": "mlp.gate_up_proj",
        "ffn.intermediate": "mlp.gate_up_proj",
        "ffn.dense": "mlp.down_proj",
    },
    bias_key="",
    rotations=("default",),
    no_dropout=("resid_pdrop",),
)
