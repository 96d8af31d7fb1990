"""Llama (Touvron et al. 2023) and SmolLM2, which has the same model type. SmolLM3 (2025): some layers rotate nothing."""

from trainables.backbone.families.decoder_family import DecoderFamily

LLAMA = DecoderFamily(model="LlamaModel")
SMOLLM3 = DecoderFamily(model="SmolLM3Model", rotated_key="no_rope_layers", defaults={"num_key_value_heads": 4})
