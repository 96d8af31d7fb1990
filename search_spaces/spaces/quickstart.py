"""Six methods on a generated task with a small encoder from a Python package: no network, no GPU, about five minutes."""

from search_spaces.language import Budget, Recipe, Space, choice, method

# Adapters and LoRA need learning rates that are ten to a hundred times as high as those of full fine-tuning.
ADAPTER_LR = choice(1e-3, 2e-3, 3e-3)

space = Space(
    title="Quickstart",
    models=("minilm",),
    tasks=("sentiment",),
    methods=(
        method("full", lr=choice(5e-5, 1e-4, 2e-4)),
        method("adapter", lr=ADAPTER_LR, r=16),
        method("sparse_adapter", lr=ADAPTER_LR, r=16, score="snip", sparsity=0.4),
        method("madapter", lr=ADAPTER_LR, r=8, n_mid=choice(1, 2)),
        method("lora", lr=choice(3e-3, 5e-3, 1e-2), r=8),
        method("linear_probe", lr=choice(3e-3, 1e-2)),
    ),
    search={"batch_size": choice(16)},
    recipe=Recipe(epochs=3, train_examples=256),
    # One trial of a cell at a time: six cells keep two cores busy, and ASHA compares the third trial with both others.
    budget=Budget(trials=3, final_seeds=3, in_flight=1, grace=1, min_values=2),
)
