"""Ten methods that peft added after LoRA, on four GLUE tasks, compared with full fine-tuning, the adapter and LoRA."""

from search_spaces.language import Budget, Recipe, Space, choice, own_search

space = Space(
    title="Newer methods on GLUE",
    models=("bert-base-uncased", "roberta-base"),
    tasks=("cola", "mrpc", "stsb", "rte"),
    methods=(
        own_search("full"),
        own_search("adapter", r=64),
        own_search("lora", r=8),
        own_search("lora_plus", r=8),
        own_search("lora_fa", r=16),
        own_search("loha", r=8),
        own_search("lokr", r=8),
        own_search("miss", r=16),
        own_search("vb_lora", r=4),
        own_search("c3a", block_size=64),
        own_search("oft", block_size=32),
        own_search("hra", r=8),
        own_search("road"),
    ),
    search={"batch_size": choice(16, 32)},
    recipe=Recipe(epochs=20, patience=5),
    budget=Budget(trials=8, final_seeds=3),
)
