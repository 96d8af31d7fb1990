"""Figure 2 of the MAdapter paper: bottleneck widths of 32 to 256 on MRPC with RoBERTa; MAdapter has half of each width.

The paper does not state the learning rate and batch size of this figure. This space uses the highest learning rate and the
larger batch size of the paper's grid, so the search of a cell is a single trial.
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
