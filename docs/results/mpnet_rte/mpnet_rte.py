"""The four methods of the MAdapter paper on RTE, with an encoder of 110 million parameters."""

from search_spaces.language import Budget, Recipe, Space, choice, method

space = Space(
    title="MAdapter's four methods on RTE, all-mpnet-base-v2",
    models=("mpnet-base",),
    tasks=("rte",),
    methods=(
        method("full", lr=choice(5e-5, 1e-4)),
        method("adapter", lr=choice(3e-4, 1e-3), r=choice(32, 64)),
        method("sparse_adapter", lr=choice(3e-4, 1e-3), r=choice(32, 64), score="snip", sparsity=0.4),
        method("madapter", lr=choice(3e-4, 1e-3), r=choice(16, 32), n_mid=choice(1, 2)),
    ),
    search={"batch_size": choice(16)},
    recipe=Recipe(epochs=4, precision="bf16"),
    budget=Budget(trials=2, final_seeds=3, in_flight=2, grace=2, min_values=2),
)
