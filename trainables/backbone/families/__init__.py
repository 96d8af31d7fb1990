"""The model types whose modules, shapes and heads are known: one file each, and one line here."""

from trainables.backbone.families.bert import BERT
from trainables.backbone.families.distilbert import DISTILBERT
from trainables.backbone.families.electra import ELECTRA
from trainables.backbone.families.family import ModelFamily
from trainables.backbone.families.roberta import CAMEMBERT, ROBERTA, XLM_ROBERTA

# By `model_type` of config.json.
FAMILIES: dict[str, ModelFamily] = {
    "bert": BERT,
    "roberta": ROBERTA,
    "xlm-roberta": XLM_ROBERTA,
    "camembert": CAMEMBERT,
    "electra": ELECTRA,
    "distilbert": DISTILBERT,
}
