"""LoHa: the elementwise product of two matrices of rank r is added to frozen linear maps (FedPara, Hyeon-Woo et al. 2022, ICLR;
as LoHa in LyCORIS, Yeh et al. 2024, ICLR).

    y = x W + b + (alpha / r) x ((A1 B1) * (A2 B2)),    A1, A2 [in, r], B1, B2 [r, out]

The product has up to rank r^2 with 2 r (in + out) numbers. A2 is zero at the start, so that training starts at the frozen
model; the others are uniform in +- 1 / sqrt(rows), all as in peft. alpha defaults to r, the scale of peft's defaults.
The r^2 products of a column of A1 with one of A2, and of rows of B1 and B2, are factors of the same matrix. Trials multiply
with these where that is cheaper than the whole matrix [in, out], i.e. at small r.
Traps: twice LoRA's parameters at equal r. At the start only A2 has a gradient, and it is small, because it is multiplied by the
small entries of A1 B1: LoHa needs higher learning rates than LoRA.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from search_spaces.language import Dimension, Scalar, choice
from trainables.methods.context import SiteContext, Values
from trainables.methods.initializers import LINEAR_UNIFORM
from trainables.methods.linear_maps import RankedMapMethod
from trainables.methods.spec import MethodFamily, Parameter

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class LoHa(RankedMapMethod):
    """`r`: rank of each of the two matrices; `alpha`: numerator of the scale alpha / r, None for r."""

    title: ClassVar[str] = "LoHa"
    paper: ClassVar[str] = "Hyeon-Woo et al. 2022"
    family: ClassVar[MethodFamily] = "low rank"
    search: ClassVar[Mapping[str, Dimension]] = {"lr": choice(1e-3, 3e-3, 1e-2, 3e-2), "r": choice(4, 8, 16)}
    removed_at_zero: ClassVar[tuple[str, ...]] = ("second_down",)
    example: ClassVar[Mapping[str, Scalar]] = {"r": 4}
    example_lr: ClassVar[float] = 0.01

    def map_parameters(self, inputs: int, outputs: int) -> dict[str, Parameter]:
        return {
            "first_down": Parameter(shape=(inputs, self.r), init=LINEAR_UNIFORM),
            "first_up": Parameter(shape=(self.r, outputs), init=LINEAR_UNIFORM),
            "second_down": Parameter(shape=(inputs, self.r)),
            "second_up": Parameter(shape=(self.r, outputs), init=LINEAR_UNIFORM),
        }

    def transform(self, h: Tensor, p: Values, at: SiteContext) -> Tensor:
        inputs, outputs = p.first_down.shape[1], p.first_up.shape[2]
        if self.r**2 * (inputs + outputs) > inputs * outputs:
            delta = (p.first_down @ p.first_up) * (p.second_down @ p.second_up)
            return h.baddbmm(at.map_input, delta, alpha=self.scale)
        down = (p.first_down[..., :, None] * p.second_down[..., None, :]).flatten(2)
        up = (p.first_up[:, :, None] * p.second_up[:, None]).flatten(1, 2)
        return h.baddbmm(at.map_input @ down, up, alpha=self.scale)
