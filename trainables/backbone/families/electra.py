"""ELECTRA (Clark et al. 2020), the discriminator: BERT's layers without pooler; the head trains a dense layer with GELU.

Trap: the small model has embeddings of width 128 and projects them to layers of width 256. Such models are not supported.
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
    head=ClassificationHead(activation="gelu", dense="classifier.dense", out="classifier.out_proj"),
)
