"""Tables 1 and 2 of the MAdapter paper: its whole grid on three seeds, and a plain adapter of MAdapter's size.

The paper has full fine-tuning, Adapter with r = 64, SparseAdapter with r = 64 of which SNIP removes 40 %, and MAdapter with
r' = 32 and one middle layer, on four GLUE tasks. Three things are added: winners are trained again on three fresh seeds; the row
`adapter_r32` is an adapter of MAdapter's width without the middle layer; and since the paper does not say how the middle layer is
initialised, `madapter_normal` starts it like the other layers, and `madapter` as the identity.
"""

from search_spaces.language import Budget, Recipe, Space, choice, method

space = Space(
    title="MAdapter, Tables 1 and 2",
    models=("bert-base-uncased", "roberta-base"),
    tasks=("cola", "mrpc", "stsb", "rte"),
    methods=(
        method("full"),
        method("adapter", r=64),
        method("adapter", label="adapter_r32", r=32),
        method("sparse_adapter", r=64, score="snip", sparsity=0.4),
        method("madapter", r=32, n_mid=1),
        method("madapter", label="madapter_normal", r=32, n_mid=1, mid_init="normal"),
    ),
    search={"lr": choice(1e-5, 5e-5, 1e-4, 5e-4), "batch_size": choice(8, 16)},
    recipe=Recipe(epochs=20, patience=5),
    # All 24 trials of a cell run at once: none is stopped early, and the next point of a grid does not depend on results.
    budget=Budget(trials=8, search_seeds=3, final_seeds=3, in_flight=24, grace=20),
    paper="madapter/1,2",
)
