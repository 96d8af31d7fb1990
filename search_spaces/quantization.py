"""How a recipe with `precision="nf4"` stores the frozen linear maps, and the words for a recipe's precision.

NF4 (Dettmers et al. 2023, QLoRA) keeps each weight as one of 16 values, in 4 bits, times the largest absolute value of the block
of weights that it belongs to. With double quantisation these largest values are stored in 8 bits. Standard library only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from search_spaces.language import Recipe

# The block sizes that bitsandbytes has.
BLOCK_SIZES = (32, 64, 128, 256, 512, 1024, 2048, 4096)
# What installs the package that quantises.
PACKAGE, EXTRA = "bitsandbytes", "nf4"

Compute = Literal["bf16", "fp32"]


@dataclass(frozen=True, kw_only=True)
class Nf4:
    """The fields of a recipe that begin with "nf4_", without it."""

    block_size: int = 64
    double_quant: bool = True
    compute: Compute = "bf16"


# The fields of a recipe that `precision="nf4"` alone reads.
FIELDS = tuple(f"nf4_{field.name}" for field in fields(Nf4))


def recipe_json(recipe: Recipe) -> dict[str, Any]:
    """Return the recipe's fields by name, those of NF4 only if the recipe uses it.

    So trials and sweeps in other precisions have the ids that they had before these fields existed.
    """
    return {name: value for name, value in vars(recipe).items() if recipe.nf4 or name not in FIELDS}


def precision_words(recipe: Recipe) -> str:
    """Return what a recipe's precision means, in words; "" for fp32."""
    if recipe.nf4:
        double = "double quantisation" if recipe.nf4.double_quant else "no double quantisation"
        return (
            f"frozen linear maps stored in 4 bits (NF4, blocks of {recipe.nf4.block_size}, {double}), matrix products in "
            f"{recipe.nf4.compute}"
        )
    return "" if recipe.precision == "fp32" else f"matrix products in {recipe.precision}"


def check_unused(recipe: Recipe, given: Mapping[str, str]) -> None:
    """Raise ValueError if an option sets a field that this recipe does not read. `given`: the options by path of their field."""
    for path, option in given.items():
        if path.removeprefix("recipe.") in FIELDS and not recipe.nf4:
            raise ValueError(
                f"{option}: read only with precision 'nf4', and it is {recipe.precision!r}; add --precision nf4"
            )
