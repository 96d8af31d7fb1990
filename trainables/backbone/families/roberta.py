"""RoBERTa (Liu et al. 2019): BERT's layers, with positions counted from 2.

The head trains a dense layer with tanh of its own; the base model's pooler is not used.
XLM-R and CamemBERT are RoBERTa with other vocabularies.
"""

from dataclasses import replace

from trainables.backbone.families.bert import BERT
from trainables.backbone.families.family import ClassificationHead, EmbeddingModules

ROBERTA = replace(
    BERT,
    model="RobertaModel",
    prefix="roberta",
    embeddings=EmbeddingModules(declared=("words", "token_types", "norm", "positions")),
    first_position=2,
    head=ClassificationHead(activation="tanh", dense="classifier.dense", out="classifier.out_proj"),
)
XLM_ROBERTA = replace(ROBERTA, model="XLMRobertaModel")
CAMEMBERT = replace(ROBERTA, model="CamembertModel")
