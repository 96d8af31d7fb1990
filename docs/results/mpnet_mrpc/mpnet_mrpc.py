"""The four methods of the MAdapter paper on MRPC, with an encoder of 110 million parameters."""

from search_spaces.language import Budget, Recipe, Space, choice, method

space = Space(
    title="MAdapter's four methods on MRPC, all-mpnet-base-v2",
    models=("mpnet-base",),
    tasks=("mrpc",),
    methods=(
        method("full", lr=choice(5e-5, 1e-4)),
        method("adapter", lr=choice(1e-3, 3e-3), r=64),
        method("sparse_adapter", lr=choice(1e-3, 3e-3), r=64, score="snip", sparsity=0.4),
        method("madapter", lr=choice(1e-3, 3e-3), r=32, n_mid=1),
    ),
    search={"batch_size": choice(16)},
    recipe=Recipe(epochs=3, precision="bf16", train_examples=320),
    budget=Budget(trials=2, final_seeds=2, in_flight=2, grace=3, min_values=2),
)
