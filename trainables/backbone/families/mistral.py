"""Mistral (Jiang et al. 2023): Llama with a sliding window of attention."""

from trainables.backbone.families.decoder_family import DecoderFamily

MISTRAL = DecoderFamily(model="MistralModel")
