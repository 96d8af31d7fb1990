"""Table 3 of the MAdapter paper: one, two and three middle layers on RoBERTa, with grid and seeds of `madapter_tables`."""

from search_spaces.language import Budget, Recipe, Space, choice, method

space = Space(
    title="MAdapter, Table 3: number of middle layers",
    models=("roberta-base",),
    tasks=("cola", "mrpc", "stsb", "rte"),
    methods=tuple(method("madapter", label=f"madapter_n{n}", r=32, n_mid=n) for n in (1, 2, 3)),
    search={"lr": choice(1e-5, 5e-5, 1e-4, 5e-4), "batch_size": choice(8, 16)},
    recipe=Recipe(epochs=20, patience=5),
    budget=Budget(trials=8, search_seeds=3, final_seeds=3, in_flight=24, grace=20),
    paper="madapter/3",
)
