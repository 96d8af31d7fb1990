"""A decoder of 135 million parameters on the generated task sentiment: three methods, few trials."""

from search_spaces.language import Budget, Recipe, Space, choice, method

space = Space(
    title="SmolLM2 on sentiment",
    models=("smollm2",),
    tasks=("sentiment",),
    methods=(
        method("adapter", lr=choice(3e-4, 1e-3, 3e-3), r=16),
        method("lora", lr=choice(3e-4, 1e-3, 3e-3), r=8, targets="all"),
        method("linear_probe", lr=choice(1e-3, 3e-3, 1e-2)),
    ),
    search={"batch_size": choice(16)},
    recipe=Recipe(epochs=3, train_examples=256),
    budget=Budget(trials=3, final_seeds=3, in_flight=3, grace=1, min_values=2),
)
