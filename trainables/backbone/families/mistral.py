"""Mistral (Jiang et al. 2023): Llama with a sliding window of attention."""

from trainables.backbone.families.decoder import DecoderFamily

MISTRAL = DecoderFamily(model="MistralModel")
