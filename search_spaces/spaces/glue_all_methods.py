"""Every method of the project on four GLUE tasks with an equal budget per cell, each searched in its recommended ranges."""

from search_spaces.language import Budget, MethodEntry, Recipe, Space, choice, own_search

VARIANTS = ("norm_input", "batch_norm", "tanh", "attention_only", "parallel", "multiplicative")


def rows(name: str) -> list[MethodEntry]:
    """The rows of one method: one per variant for `houlsby_variant`, a single one for every other method."""
    if name == "houlsby_variant":
        return [own_search(name, label=f"houlsby_{variant}", variant=variant) for variant in VARIANTS]
    return [own_search(name)]


def space(methods: tuple[str, ...]) -> Space:
    """Return the space. `methods`: the names of all methods, in the order of `trainables.methods.METHODS`."""
    return Space(
        title="Every method on GLUE",
        models=("bert-base-uncased",),
        tasks=("cola", "mrpc", "stsb", "rte"),
        methods=tuple(row for name in methods for row in rows(name)),
        search={"batch_size": choice(16, 32)},
        recipe=Recipe(epochs=20, patience=5),
        budget=Budget(trials=8, final_seeds=3),
    )
