"""GLUE as in Houlsby et al. 2019: adapters of size 8, 64 or 256 against full fine-tuning of BERT-large.

The paper trains on five seeds and keeps the best on the validation split; here the winner is trained on five fresh seeds, and
their mean is reported. Learning rate and epochs are searched. The row `adapter` searches the size for each task, `adapter_r64`
has size 64 for all. The tasks are the paper's, all of GLUE without WNLI. MNLI is tested on the genres that it is trained on; the
task `mnli_mm` tests it on others.
"""

from search_spaces.language import Budget, Recipe, Space, choice, method

space = Space(
    title="Houlsby et al. 2019: GLUE",
    models=("bert-large-uncased",),
    tasks=("cola", "sst2", "mrpc", "stsb", "qqp", "mnli", "qnli", "rte"),
    methods=(
        method("full"),
        method("adapter", r=choice(8, 64, 256)),
        method("adapter", label="adapter_r64", r=64),
    ),
    search={"lr": choice(3e-5, 3e-4, 3e-3), "batch_size": 32, "epochs": choice(3, 20)},
    # No early stopping; the parameters of the best epoch are still the ones that are tested.
    recipe=Recipe(epochs=20, patience=20, weight_decay=0.01, eps=1e-6),
    # The whole grid of each row: 6 configurations, or 18 for the row whose size is searched.
    budget=Budget(trials=18, final_seeds=5, in_flight=18, grace=20),
    paper="houlsby_glue",
)
