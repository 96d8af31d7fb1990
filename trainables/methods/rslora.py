"""rsLoRA: LoRA with alpha / sqrt(r) instead of alpha / r, so that its updates do not shrink at large r (Kalajdzievski 2023).

    y = x W + b + (alpha / sqrt(r)) x A B

Everything else is as in LoRA (lora.py). Trap: at r = 8 and equal alpha, the scale is 2.8 times that of LoRA, so rsLoRA needs
lower learning rates.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import sqrt
from typing import ClassVar

from search_spaces.language import Dimension, Scalar, choice
from trainables.methods.lora import LoRA


@dataclass(frozen=True, kw_only=True)
class RsLoRA(LoRA):
    title: ClassVar[str] = "rsLoRA"
    paper: ClassVar[str] = "Kalajdzievski 2023"
    search: ClassVar[Mapping[str, Dimension]] = {"lr": choice(1e-4, 3e-4, 1e-3, 3e-3), "r": choice(4, 8, 16)}
    example: ClassVar[Mapping[str, Scalar]] = {"r": 4, "targets": "all"}

    @property
    def scale(self) -> float:
        return self.strength / sqrt(self.r)
