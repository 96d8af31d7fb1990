"""Llama (Touvron et al. 2023) and SmolLM2, which has the same model type."""

from trainables.backbone.families.decoder_family import DecoderFamily

LLAMA = DecoderFamily(model="LlamaModel")
