"""Four methods on two generated tasks with a small encoder from a Python package: no network, no GPU, under five minutes."""

from search_spaces.language import Budget, Recipe, Space, choice, method

# Adapters need learning rates that are ten times as high as those of full fine-tuning.
ADAPTER_LR = choice(1e-3, 2e-3, 3e-3)

space = Space(
    title="Quickstart",
    models=("minilm",),
    tasks=("agreement", "entailment"),
    methods=(
        method("full"),
        method("adapter", lr=ADAPTER_LR, r=choice(16, 32)),
        method("sparse_adapter", lr=ADAPTER_LR, r=choice(16, 32), score="snip", sparsity=0.4),
        method("madapter", lr=ADAPTER_LR, r=choice(8, 16), n_mid=choice(1, 2, 3)),
    ),
    search={"lr": choice(5e-5, 1e-4, 2e-4), "batch_size": choice(16)},
    recipe=Recipe(epochs=3, train_examples=256, test_examples=400),
    # One trial of a cell at a time: eight cells keep two cores busy, and ASHA compares the third trial with both others.
    budget=Budget(trials=3, final_seeds=2, in_flight=1, grace=1, min_values=2),
)
