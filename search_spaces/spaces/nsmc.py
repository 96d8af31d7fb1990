"""Korean film reviews with a multilingual encoder: full, adapter and LoRA with 50, 100 and 150 thousand reviews.

Published with lr 2e-5 for every method, which is low for adapters and LoRA: `lora_r64_lr4e-4` is the same LoRA at the rate of
its own authors. The published adapter was trained on Korean text before; `adapter` has its size (r = 384) and starts fresh. What
the paper leaves open: batch 32, 128 tokens, linear decay without warm-up. Needs --data-dir with nsmc/ratings_*.txt.
"""

from search_spaces.language import Budget, Recipe, Space, method

space = Space(
    title="NSMC with a multilingual encoder",
    models=("bert-base-multilingual-cased",),
    tasks=("nsmc_50k", "nsmc_100k", "nsmc_150k"),
    methods=(
        method("full"),
        method("pfeiffer", label="adapter", r=384),
        *(method("lora", label=f"lora_r{r}", r=r) for r in (64, 32, 16)),
        method("lora", label="lora_r64_lr4e-4", r=64, lr=4e-4),
    ),
    search={"lr": 2e-5, "batch_size": 32},
    recipe=Recipe(epochs=4, patience=4, warmup=0.0, weight_decay=0.01),
    budget=Budget(trials=1, final_seeds=3, grace=4),
    paper="nsmc",
)
