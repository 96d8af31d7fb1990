"""LoRA and its variants on four GLUE tasks, most at rank 8, compared with full fine-tuning and the adapter."""

from search_spaces.language import Budget, Recipe, Space, choice, own_search

space = Space(
    title="The LoRA family on GLUE",
    models=("bert-base-uncased", "roberta-base"),
    tasks=("cola", "mrpc", "stsb", "rte"),
    methods=(
        own_search("full"),
        own_search("adapter", r=64),
        own_search("lora", r=8),
        own_search("lora", label="lora_all_maps", r=8, targets="all"),
        own_search("rslora", r=8),
        own_search("dora", r=8),
        own_search("pissa", r=8),
        own_search("vera", r=256),
        own_search("adalora", r=12, target=8),
        own_search("dylora", r=8),
    ),
    search={"batch_size": choice(16, 32)},
    recipe=Recipe(epochs=20, patience=5),
    budget=Budget(trials=8, final_seeds=3),
)
