"""Two encoders and a decoder on pairs of captions in the user's own CSV files: four methods, one table."""

from search_spaces.language import Budget, FileTask, Recipe, Space, choice, method

space = Space(
    title="Encoders and a decoder on pairs of captions",
    models=("minilm", "mpnet-base", "smollm2"),
    tasks=(
        FileTask(
            name="captions",
            train="train.csv",
            test="test.csv",
            text="caption",
            text_pair="other_caption",
            label="similarity",
            regression=True,
        ),
    ),
    methods=(
        method("full", lr=choice(2e-5, 5e-5, 1e-4)),
        method("lora", lr=choice(3e-4, 1e-3, 3e-3), r=8, targets="all"),
        method("adapter", lr=choice(3e-4, 1e-3, 3e-3), r=16),
        method("linear_probe", lr=choice(1e-3, 3e-3, 1e-2)),
    ),
    search={"batch_size": choice(16)},
    recipe=Recipe(epochs=4, precision="bf16"),
    budget=Budget(trials=3, final_seeds=3, in_flight=3, grace=2, min_values=2),
)
