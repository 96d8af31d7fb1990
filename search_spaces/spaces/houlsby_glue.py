"""GLUE as in Houlsby et al. 2019: adapters of size 8, 64 or 256 against full fine-tuning of BERT-large.

The paper keeps the best of five reruns on the validation split; here the winner is trained on five fresh seeds, and their mean is
reported. Learning rate and epochs are searched. `adapter` chooses its size per task, `adapter_r64` has one size for all. Four
tasks of GLUE's nine.
"""

from search_spaces.language import Budget, Recipe, Space, choice, method

space = Space(
    title="Houlsby et al. 2019: GLUE",
    models=("bert-large-uncased",),
    tasks=("cola", "mrpc", "stsb", "rte"),
    methods=(
        method("full"),
        method("adapter", r=choice(8, 64, 256)),
        method("adapter", label="adapter_r64", r=64),
    ),
    search={"lr": choice(3e-5, 3e-4, 3e-3), "batch_size": 32, "epochs": choice(3, 20)},
    # Without early stopping; the best epoch is kept all the same.
    recipe=Recipe(epochs=20, patience=20, weight_decay=0.01, eps=1e-6),
    # The whole grid of each row: 6 points, or 18 where the size is searched.
    budget=Budget(trials=18, final_seeds=5, in_flight=18, grace=20),
    paper="houlsby_glue",
)
