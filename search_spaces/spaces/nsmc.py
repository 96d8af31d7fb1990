"""NSMC, Korean film reviews, with a multilingual encoder: full, adapter and LoRA with 50, 100 and 150 thousand reviews.

The published results use the learning rate 2e-5 for every method, which is low for adapters and LoRA; the row
`lora_r64_lr4e-4` has the rate that LoRA's authors use. The published adapter had been trained on Korean text beforehand; the row
`adapter` has its size (r = 384) but starts from a random initialisation. The paper does not state batch size, length and
schedule; this space uses 32, 128 tokens, and linear decay without warm-up. Needs --data-dir with nsmc/ratings_*.txt.
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
