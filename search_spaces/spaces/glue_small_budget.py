"""Methods that train less than 0.1 % of the encoder's parameters, compared with full fine-tuning on four GLUE tasks."""

from search_spaces.language import Budget, Recipe, Space, choice, own_search

space = Space(
    title="Under a thousandth of the parameters, on GLUE",
    models=("bert-base-uncased",),
    tasks=("cola", "mrpc", "stsb", "rte"),
    methods=(
        own_search("full"),
        own_search("linear_probe"),
        own_search("layer_norm"),
        own_search("bitfit"),
        own_search("bitfit_small"),
        own_search("ia3"),
        own_search("vera", r=choice(64, 256)),
        own_search("lora", r=choice(1, 2)),
        own_search("compacter", r=24),
        own_search("compacter_pp", r=24),
        own_search("prefix", length=choice(2, 5)),
        own_search("prompt_tuning"),
        own_search("adaption_prompt"),
    ),
    search={"batch_size": choice(16, 32)},
    recipe=Recipe(epochs=20, patience=5),
    budget=Budget(trials=8, final_seeds=3),
)
