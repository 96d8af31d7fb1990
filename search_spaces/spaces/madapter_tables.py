"""Tables 1 and 2 of the MAdapter paper: the whole grid on three seeds each, and the plain adapter of MAdapter's size.

Published: full, Adapter r = 64, SparseAdapter r = 64 with 40 % removed by SNIP, MAdapter r' = 32 with one middle layer, on four
GLUE tasks. Ours: the winners are trained again on three fresh seeds, and `adapter_r32`, which has MAdapter's number of
parameters without its middle layer, and was not run by the paper.
"""

from search_spaces.language import Budget, Recipe, Space, choice, method

space = Space(
    title="MAdapter, Tables 1 and 2",
    models=("bert-base-uncased", "roberta-base"),
    tasks=("cola", "mrpc", "stsb", "rte"),
    methods=(
        method("full"),
        method("adapter", r=64),
        method("adapter", label="adapter_r32", r=32),
        method("sparse_adapter", r=64, score="snip", sparsity=0.4),
        method("madapter", r=32, n_mid=1),
    ),
    search={"lr": choice(1e-5, 5e-5, 1e-4, 5e-4), "batch_size": choice(8, 16)},
    recipe=Recipe(epochs=20, patience=5),
    # No trial is stopped early and a grid does not depend on results, so all trials of a cell may run at once.
    budget=Budget(trials=8, search_seeds=3, final_seeds=3, in_flight=24, grace=20),
    paper="madapter/1,2",
)
