"""Three methods with dropout, each trained by this project's engine and alone by peft, on eight seeds."""

from search_spaces.language import Budget, Recipe, Space, choice, method
from search_spaces.peft_rows import peft_row

QUERY_VALUE = ["query", "value"]
FFN = r".*layer\.\d+\.output\.dense"

space = Space(
    title="The same methods in both engines",
    models=("minilm",),
    tasks=("sentiment",),
    methods=(
        method("lora", lr=choice(3e-3), r=8),
        peft_row({"peft_type": "LORA", "r": 8, "lora_alpha": 16, "target_modules": QUERY_VALUE}, lr=choice(3e-3)),
        method("loha", lr=choice(1e-2), r=4),
        peft_row({"peft_type": "LOHA", "r": 4, "alpha": 4, "target_modules": QUERY_VALUE}, lr=choice(1e-2)),
        method("ia3", lr=choice(3e-2)),
        peft_row(
            {
                "peft_type": "IA3",
                "target_modules": r".*layer\.\d+\.(attention\.self\.(key|value)|output\.dense)",
                "feedforward_modules": FFN,
            },
            lr=choice(3e-2),
        ),
    ),
    search={"batch_size": choice(16)},
    recipe=Recipe(epochs=4, train_examples=512),
    budget=Budget(trials=1, final_seeds=8),
)
