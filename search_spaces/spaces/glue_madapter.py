"""MAdapter against full fine-tuning, Adapter and SparseAdapter on four GLUE tasks, BERT and RoBERTa."""

from search_spaces.language import Budget, Recipe, Space, choice, method

space = Space(
    title="MAdapter on GLUE",
    models=("bert-base-uncased", "roberta-base"),
    tasks=("cola", "mrpc", "stsb", "rte"),
    methods=(
        method("full"),
        method("adapter", r=choice(32, 64, 128)),
        method("sparse_adapter", r=choice(32, 64, 128), score="snip", sparsity=0.4),
        method("madapter", r=choice(16, 32, 64), n_mid=choice(1, 2, 3)),
    ),
    search={"lr": choice(1e-5, 5e-5, 1e-4, 5e-4), "batch_size": choice(8, 16)},
    recipe=Recipe(epochs=20, patience=5),
    budget=Budget(trials=8, final_seeds=3),
    paper="madapter/1,2,3",
)
