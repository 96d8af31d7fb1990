"""Houlsby et al. 2019, section 3.6: trained adapters removed from every span of layers, and adapters started at 1e-7 to 1.

Size 64 on BERT-base, as in the paper (figure 6), which shows MNLI and CoLA; here the four tasks of GLUE that this project reads.
The learning rate is searched for each scale. 1e-2 is the usual scale: its finals are the ones that lose layers.
"""

from search_spaces.language import Budget, Recipe, Space, ablated, choice, method

SCALES = {f"scale_1e{power}": float(f"1e{power}") for power in range(-7, 1)}
ROWS = {label: method("adapter", label=label, r=64, init_scale=scale) for label, scale in SCALES.items()}
ROWS["scale_1e-2"] = ablated(ROWS["scale_1e-2"])

space = Space(
    title="Houlsby et al. 2019: ablation and initial scale",
    models=("bert-base-uncased",),
    tasks=("cola", "mrpc", "stsb", "rte"),
    methods=tuple(ROWS.values()),
    search={"lr": choice(3e-5, 3e-4, 3e-3), "batch_size": choice(32)},
    # Without early stopping; the best epoch is kept all the same.
    recipe=Recipe(epochs=20, patience=20, weight_decay=0.01, eps=1e-6),
    # The whole grid of learning rates, none of them stopped early.
    budget=Budget(trials=3, final_seeds=5, in_flight=3, grace=20),
)
