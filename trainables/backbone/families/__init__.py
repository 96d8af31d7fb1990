"""The supported model families: each has one file with its modules, shapes and head, and one entry in FAMILIES.

Families of other packages are added to them (`search_spaces/plugins.py`).
"""

from search_spaces.plugins import with_plugins
from trainables.backbone.families.bert import BERT
from trainables.backbone.families.deberta import DEBERTA
from trainables.backbone.families.distilbert import DISTILBERT
from trainables.backbone.families.electra import ELECTRA
from trainables.backbone.families.family import ModelFamily, checked_family
from trainables.backbone.families.gemma import GEMMA2, GEMMA3
from trainables.backbone.families.gpt2 import GPT2
from trainables.backbone.families.llama import LLAMA, SMOLLM3
from trainables.backbone.families.mistral import MISTRAL
from trainables.backbone.families.modernbert import MODERNBERT
from trainables.backbone.families.mpnet import MPNET
from trainables.backbone.families.olmo import OLMO2
from trainables.backbone.families.phi import PHI3
from trainables.backbone.families.qwen import QWEN2, QWEN3
from trainables.backbone.families.roberta import CAMEMBERT, ROBERTA, XLM_ROBERTA

# Families by the `model_type` in config.json.
FAMILIES: dict[str, ModelFamily] = with_plugins(
    "families",
    {
        "bert": BERT,
        "roberta": ROBERTA,
        "xlm-roberta": XLM_ROBERTA,
        "camembert": CAMEMBERT,
        "electra": ELECTRA,
        "distilbert": DISTILBERT,
        "mpnet": MPNET,
        "modernbert": MODERNBERT,
        "deberta-v2": DEBERTA,
        "llama": LLAMA,
        "mistral": MISTRAL,
        "qwen2": QWEN2,
        "qwen3": QWEN3,
        "smollm3": SMOLLM3,
        "olmo2": OLMO2,
        "gemma2": GEMMA2,
        "gemma3_text": GEMMA3,
        "phi3": PHI3,
        "gpt2": GPT2,
    },
    checked_family,
)
