"""OLMo 2 (OLMo Team 2025): Llama with norms of the sub-layers' outputs instead of their inputs, and of all queries and keys."""

from trainables.backbone.families.decoder_family import DecoderFamily

OLMO2 = DecoderFamily(
    model="Olmo2Model",
    norms={},
    output_norms={"attention.output": "post_attention_layernorm", "ffn.output": "post_feedforward_layernorm"},
    query_key_norms={"attention.query": "self_attn.q_norm", "attention.key": "self_attn.k_norm"},
    norms_whole_maps=True,
)
