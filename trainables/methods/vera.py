"""VeRA: one frozen random pair of matrices for all layers, and two trained vectors per linear map (Kopiczko et al. 2024, ICLR).

    y = x W + b + ((x A * d) B) * e,    A [in, r], B [r, out] frozen, d [r] = 0.1, e [out] = 0

A and B are Kaiming-uniform, from a fixed seed that all trials share, so that only d and e have to be stored; maps of
different widths take slices of the largest. Starts as the frozen model. There is no alpha.
Traps: d's first gradient is zero, because e is; learning rates lie an order above LoRA's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from search_spaces.language import Dimension, Scalar, choice
from trainables.methods.context import SiteContext, Values
from trainables.methods.initializers import RELU_UNIFORM, constant
from trainables.methods.lora import LowRank
from trainables.methods.spec import Parameter, Shape
from trainables.methods.validate import require_int

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class VeRA(LowRank):
    """`r`: rank of the frozen pair; it may exceed the width."""

    title: ClassVar[str] = "VeRA"
    paper: ClassVar[str] = "Kopiczko et al. 2024"
    search: ClassVar[Mapping[str, Dimension]] = {"lr": choice(5e-4, 1e-3, 3e-3, 1e-2), "r": choice(64, 256, 1024)}
    removed_at_zero: ClassVar[tuple[str, ...]] = ("outer",)
    example: ClassVar[Mapping[str, Scalar]] = {"r": 16, "targets": "all"}
    example_lr: ClassVar[float] = 0.01

    r: int = 256

    def check(self, shape: Shape | None) -> None:
        super().check(shape)
        require_int("r", self.r, 1, 8192)

    def beside(self, inputs: int, outputs: int) -> dict[str, Parameter]:
        return {"inner": Parameter(shape=(self.r,), init=constant(0.1)), "outer": Parameter(shape=(outputs,))}

    def constants(self, shape: Shape) -> dict[str, Parameter]:
        inputs, outputs = (max(widths) for widths in zip(*self.ends(shape), strict=True))
        return {
            "down": Parameter(shape=(inputs, self.r), init=RELU_UNIFORM),
            "up": Parameter(shape=(self.r, outputs), init=RELU_UNIFORM),
        }

    def transform(self, h: Tensor, p: Values, at: SiteContext) -> Tensor:
        inner = at.map_input @ p.down[: at.map_input.shape[-1]] * p.inner
        return h + inner @ p.up[:, : h.shape[-1]] * p.outer
