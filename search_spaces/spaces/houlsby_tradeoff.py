"""Score against parameters as in Houlsby et al. 2019: adapters of many sizes, top k layers, LayerNorms only, on BERT-base.

Every row searches the learning rates and numbers of epochs of the paper's GLUE experiments: six configurations per row.
"""

from search_spaces.language import Budget, Recipe, Space, choice, method

space = Space(
    title="Houlsby et al. 2019: score against parameters",
    models=("bert-base-uncased",),
    tasks=("cola", "mrpc", "stsb", "rte"),
    methods=(
        method("full"),
        *(method("adapter", label=f"adapter_r{r}", r=r) for r in (2, 4, 8, 16, 32, 64, 128, 256)),
        *(method("top_layers", label=f"top_{k}", k=k) for k in (1, 2, 3, 5, 7, 9, 11, 12)),
        method("layer_norm"),
    ),
    search={"lr": choice(3e-5, 3e-4, 3e-3), "batch_size": 32, "epochs": choice(3, 20)},
    recipe=Recipe(epochs=20, patience=20, weight_decay=0.01, eps=1e-6),
    budget=Budget(trials=6, final_seeds=5, in_flight=6, grace=20),
    paper="houlsby_tradeoff",
)
