"""Figure 2 of the MAdapter paper: bottlenecks of 32 to 256 on MRPC with RoBERTa, MAdapter at half of the width.

The paper fixes one setting and does not say which: here the highest learning rate of its grid, and its larger batch. With one
point to try, the search of a cell is a single trial.
"""

from search_spaces.language import Budget, Recipe, Space, method

WIDTHS = (32, 64, 128, 256)

space = Space(
    title="MAdapter, Figure 2: width of the bottleneck",
    models=("roberta-base",),
    tasks=("mrpc",),
    methods=(
        *(method("adapter", label=f"adapter_r{r}", r=r) for r in WIDTHS),
        *(method("sparse_adapter", label=f"sparse_adapter_r{r}", r=r, score="snip", sparsity=0.4) for r in WIDTHS),
        *(method("madapter", label=f"madapter_r{r // 2}", r=r // 2, n_mid=1) for r in WIDTHS),
    ),
    search={"lr": 5e-4, "batch_size": 16},
    recipe=Recipe(epochs=20, patience=5),
    budget=Budget(trials=1, final_seeds=3, grace=20),
    paper="madapter/figure_2",
)
