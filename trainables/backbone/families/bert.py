"""BERT (Devlin et al. 2019): post-norm encoder with token types; its pretrained pooler is a part of the classification head."""

from trainables.backbone.families.family import ClassificationHead, ModelFamily
from trainables.methods.spec import Site

POOLER = "pooler.dense"
MAPS: dict[Site, str] = {
    "attention.query": "attention.self.query",
    "attention.key": "attention.self.key",
    "attention.value": "attention.self.value",
    "attention.dense": "attention.output.dense",
    "ffn.intermediate": "intermediate.dense",
    "ffn.dense": "output.dense",
}
NORMS: dict[Site, str] = {"attention.output": "attention.output.LayerNorm", "ffn.output": "output.LayerNorm"}

BERT = ModelFamily(
    model="BertModel",
    prefix="bert",
    layer="encoder.layer.{}.",
    maps=MAPS,
    norms=NORMS,
    pretrained_pooler=POOLER,
    head=ClassificationHead(pooler=POOLER, activation="tanh"),
)
