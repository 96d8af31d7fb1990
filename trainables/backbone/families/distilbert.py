"""DistilBERT (Sanh et al. 2019): BERT without token types and pooler. Its config entries and modules have other names.

Traps: there is no dropout after the attention sub-layer; the head's dense layer is followed by ReLU and by dropout, with a
rate of its own in the config, and has no dropout before it.
"""

from trainables.backbone.families.family import ClassificationHead, ConfigKeys, EmbeddingModules, ModelFamily

DISTILBERT = ModelFamily(
    model="DistilBertModel",
    prefix="distilbert",
    keys=ConfigKeys(
        layers="n_layers",
        width="dim",
        ffn="hidden_dim",
        heads="n_heads",
        token_types=None,
        activation="activation",
        hidden_dropout="dropout",
        attention_dropout="attention_dropout",
        head_dropout="seq_classif_dropout",
    ),
    embeddings=EmbeddingModules(token_types=None),
    layer="transformer.layer.{}.",
    maps={
        "attention.query": "attention.q_lin",
        "attention.key": "attention.k_lin",
        "attention.value": "attention.v_lin",
        "attention.dense": "attention.out_lin",
        "ffn.intermediate": "ffn.lin1",
        "ffn.dense": "ffn.lin2",
    },
    norms={"attention.output": "sa_layer_norm", "ffn.output": "output_layer_norm"},
    dropped_outputs=("ffn.output",),
    head=ClassificationHead(activation="relu", drops_input=False, dense="pre_classifier"),
)
