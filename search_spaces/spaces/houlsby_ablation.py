"""Houlsby et al. 2019, section 3.6: trained adapters removed from spans of layers, and initial scales from 1e-7 to 1.

Adapters of size 64 on BERT-base, as in the paper's figure 6. The paper shows MNLI and CoLA; this space has the four GLUE tasks
of this project. The learning rate is searched for each scale. Layers are removed from the finals of scale 1e-2, the usual one.
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
    # No early stopping; the parameters of the best epoch are still the ones that are tested.
    recipe=Recipe(epochs=20, patience=20, weight_decay=0.01, eps=1e-6),
    # All three learning rates; `grace` = the number of epochs, so that ASHA stops no trial.
    budget=Budget(trials=3, final_seeds=5, in_flight=3, grace=20),
)
