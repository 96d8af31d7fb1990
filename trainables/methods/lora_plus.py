"""LoRA+: LoRA whose B learns faster than its A (Hayou et al. 2024, ICML).

    y = x W + b + (alpha / r) x A B,    learning rate of A: lr,    of B: ratio * lr

Parameters, start and scale are LoRA's (lora.py). The paper derives that A and B should not have the same rate in wide models, and
recommends a ratio of 16. Weight decay takes lr times the decay from A, and ratio times as much from B, as AdamW does with groups.
Differs from peft's `create_loraplus_optimizer` in the head: there its biases learn at ratio * lr, here the whole head at lr.
Trap: lr is that of A. A rate that suits LoRA is too high for B: the paper halves it and more.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

from search_spaces.language import Dimension, Scalar, choice
from trainables.methods.lora import LoRA
from trainables.methods.spec import Parameter, Shape
from trainables.methods.validate import require_number


@dataclass(frozen=True, kw_only=True)
class LoRAPlus(LoRA):
    """`r`, `alpha`: as in LoRA; `ratio`: learning rate of B divided by that of A."""

    title: ClassVar[str] = "LoRA+"
    paper: ClassVar[str] = "Hayou et al. 2024"
    search: ClassVar[Mapping[str, Dimension]] = {
        "lr": choice(1e-4, 3e-4, 1e-3, 3e-3),
        "r": choice(4, 8, 16),
        "ratio": choice(4.0, 16.0),
    }
    example: ClassVar[Mapping[str, Scalar]] = {"r": 4, "ratio": 4.0}

    ratio: float = 16.0

    def check(self, shape: Shape | None) -> None:
        super().check(shape)
        require_number("ratio", self.ratio, 1.0, 1000.0)

    def map_parameters(self, inputs: int, outputs: int) -> dict[str, Parameter]:
        found = super().map_parameters(inputs, outputs)
        return {**found, "up": replace(found["up"], lr_factor=float(self.ratio))}
