"""ELECTRA (Clark et al. 2020), the discriminator: BERT's layers, no pooler, and a new dense layer with GELU in the head.

Trap: the small model projects its 128 wide embeddings to 256 wide layers; such a model is refused.
"""

from dataclasses import replace

from trainables.backbone.families.bert import BERT
from trainables.backbone.families.family import ClassificationHead, ConfigKeys

ELECTRA = replace(
    BERT,
    model="ElectraModel",
    prefix="electra",
    keys=ConfigKeys(embedding_width="embedding_size"),
    pretrained_pooler=None,
    head=ClassificationHead(activation="gelu"),
)
