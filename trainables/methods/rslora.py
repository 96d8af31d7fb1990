"""rsLoRA: LoRA with alpha / sqrt(r) instead of alpha / r, so that its updates do not shrink at large r (Kalajdzievski 2023).

    y = x W + b + (alpha / sqrt(r)) x A B

Everything else is as in LoRA (lora.py), except that alpha defaults to 16 at every rank: with LoRA's default 2 r, the scale would
be 2 sqrt(r) and grow with the rank, the opposite of what the method is for. At r = 8 both defaults are equal.
Trap: at r = 8 and equal alpha, the scale is 2.8 times that of LoRA, so rsLoRA needs lower learning rates.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import sqrt
from typing import ClassVar

from search_spaces.language import Dimension, Scalar, choice
from trainables.methods.lora import LoRA

ALPHA = 16.0


@dataclass(frozen=True, kw_only=True)
class RsLoRA(LoRA):
    """`r`: rank; `alpha`: numerator of the scale alpha / sqrt(r), None for 16."""

    title: ClassVar[str] = "rsLoRA"
    paper: ClassVar[str] = "Kalajdzievski 2023"
    search: ClassVar[Mapping[str, Dimension]] = {"lr": choice(1e-4, 3e-4, 1e-3, 3e-3), "r": choice(4, 8, 16)}
    example: ClassVar[Mapping[str, Scalar]] = {"r": 4, "targets": "all"}

    @property
    def strength(self) -> float:
        return ALPHA if self.alpha is None else self.alpha

    @property
    def scale(self) -> float:
        return self.strength / sqrt(self.r)
