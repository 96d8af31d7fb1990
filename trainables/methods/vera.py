"""VeRA: all layers share one frozen random pair of matrices; two vectors per linear map are trained (Kopiczko et al. 2024, ICLR).

    y = x W + b + ((x A * d) B) * e,    A [in, r], B [r, out] frozen;    at the start d [r] = 0.1, e [out] = 0

A and B are Kaiming-uniform and drawn from a fixed seed that all trials share, so that only d and e have to be stored. They have
the largest input and output width of all maps; narrower maps use slices of them. Training starts at the frozen model. There is no
alpha.
Traps: d's gradient in the first step is zero, because e is zero. VeRA needs learning rates about ten times those of LoRA.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from search_spaces.language import Dimension, Scalar, choice
from trainables.methods.context import SiteContext, Values
from trainables.methods.initializers import RELU_UNIFORM, constant
from trainables.methods.linear_maps import LinearMapMethod
from trainables.methods.spec import MethodFamily, Parameter, Shape
from trainables.methods.validate import require_int

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class VeRA(LinearMapMethod):
    """`r`: rank of the frozen pair of matrices; it may exceed the width of the hidden states."""

    title: ClassVar[str] = "VeRA"
    paper: ClassVar[str] = "Kopiczko et al. 2024"
    family: ClassVar[MethodFamily] = "low rank"
    search: ClassVar[Mapping[str, Dimension]] = {"lr": choice(3e-3, 1e-2, 3e-2, 1e-1), "r": choice(64, 256, 1024)}
    removed_at_zero: ClassVar[tuple[str, ...]] = ("outer",)
    example: ClassVar[Mapping[str, Scalar]] = {"r": 16, "targets": "all"}
    example_lr: ClassVar[float] = 0.01

    r: int = 256

    def check(self, shape: Shape | None) -> None:
        super().check(shape)
        require_int("r", self.r, 1, 8192)

    def map_parameters(self, inputs: int, outputs: int) -> dict[str, Parameter]:
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
