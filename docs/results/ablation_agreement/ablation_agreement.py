"""Trained adapters removed from every span of layers, on the generated task that they learn within minutes."""

from search_spaces.language import Budget, Recipe, Space, ablated, choice, method

space = Space(
    title="Adapters removed from spans of layers, agreement",
    models=("minilm",),
    tasks=("agreement",),
    methods=(ablated(method("adapter", r=16)),),
    search={"lr": choice(5e-4, 1e-3), "batch_size": 16},
    recipe=Recipe(epochs=3),
    budget=Budget(trials=2, final_seeds=3, grace=3),
)
