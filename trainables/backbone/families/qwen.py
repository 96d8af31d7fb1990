"""Qwen2 (Yang et al. 2024): Llama with biases of the query, key and value maps. Qwen3 (2025): none, but norms of each head."""

from trainables.backbone.families.decoder_family import INPUTS, DecoderFamily

QWEN2 = DecoderFamily(model="Qwen2Model", biased=INPUTS, bias_key="")
QWEN3 = DecoderFamily(
    model="Qwen3Model", query_key_norms={"attention.query": "self_attn.q_norm", "attention.key": "self_attn.k_norm"}
)
