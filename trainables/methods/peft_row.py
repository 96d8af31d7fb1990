"""The method of rows that the library peft trains (`search_spaces/peft_rows.py`), as far as it is known without peft.

It has no formula and no declared parameters: `trainables/peft_training` builds peft's own modules and trains each trial alone.
This module imports neither torch nor peft.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import metadata
from typing import Any, ClassVar

from search_spaces.language import Recipe, Scalar
from search_spaces.peft_rows import PEFT, TYPE, field_value
from trainables.methods.base import Method
from trainables.methods.spec import MethodFamily, Shape


def installed_peft() -> str | None:
    """Return the version of the installed peft, None if it is not installed."""
    try:
        return metadata.version(PEFT)
    except metadata.PackageNotFoundError:
        return None


@dataclass(frozen=True, kw_only=True)
class PeftRow(Method):
    """`config`: the fields of peft's configuration as settings of a trial, with its type under "peft_type"."""

    title: ClassVar[str] = "peft"
    paper: ClassVar[str] = "the library peft"
    family: ClassVar[MethodFamily] = "peft"
    shares_backbone: ClassVar[bool] = False

    config: Mapping[str, Scalar] = field(default_factory=dict)

    def settings(self) -> dict[str, Any]:
        return dict(self.config)

    def check_recipe(self, recipe: Recipe, shape: Shape | None) -> None:
        """Raise ValueError if the training recipe does not fit the row: its copy of the model is not stored in 4 bits."""
        if recipe.precision not in ("fp32", "bf16"):
            raise ValueError(f"precision = {recipe.precision!r}: rows of peft are trained in 'fp32' or 'bf16'")
        super().check_recipe(recipe, shape)

    @property
    def fields(self) -> dict[str, Any]:
        """The fields of peft's configuration, without its type."""
        return {name: field_value(value) for name, value in self.config.items() if name != TYPE}

    @property
    def peft_type(self) -> str:
        return str(self.config.get(TYPE, ""))

    @property
    def virtual_tokens(self) -> int:
        """Number of tokens or keys that a prompt of this configuration puts before each example."""
        number = self.config.get("num_virtual_tokens", 0)
        return number if isinstance(number, int) else 0

    def target_step(self, total: int) -> int:
        """AdaLoRA has its final rank `tfinal` steps before the end."""
        final = self.config.get("tfinal", 0)
        return max(0, total - final) if self.peft_type == "ADALORA" and isinstance(final, int) else 0
