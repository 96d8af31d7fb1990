"""HRA: the input of frozen linear maps is reflected r times, each time at a trained hyperplane (Yuan et al. 2024, NeurIPS).

    y = (x H_r ... H_1) W + b,    H_i = I - 2 u_i u_i^T,    u_i = v_i / |v_i|,    v_i [in] trained

The product of the H_i is orthogonal, and differs from the identity by a matrix of rank r. With U [in, r] whose columns are the
u_i, it is I - U C^T U^T, where C [r, r] is the upper triangular matrix with C = 2 (I - C N), N being U^T U above its diagonal.
So what is added to the frozen model's output is -((x U) C^T) (U^T W), and costs about as much as LoRA. The column j of C
depends on those before it alone: after r - 1 steps of that equation from C = 2 I, all columns are right.
As in peft, v_1 = v_2, v_3 = v_4, ... at the start, uniform in +- sqrt(2 / r): two equal reflections cancel, and training starts
at the frozen model up to rounding. r has to be even for that. The authors' regularisation of the angles between the v_i and their
variant with orthogonal v_i (peft's `apply_GS`) are not here.
Traps: the length of a v_i has no effect on y, but divides the gradient: the step of the same learning rate turns a long v_i less.
Weight decay shortens the v_i and changes nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from search_spaces.language import Dimension, Scalar, choice
from trainables.methods.context import SiteContext, Values
from trainables.methods.initializers import PAIRED_UNIFORM
from trainables.methods.linear_maps import LinearMapMethod
from trainables.methods.spec import MethodFamily, Parameter, Shape
from trainables.methods.validate import require_int

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class HRA(LinearMapMethod):
    """`r`: number of reflections; even."""

    title: ClassVar[str] = "HRA"
    paper: ClassVar[str] = "Yuan et al. 2024"
    family: ClassVar[MethodFamily] = "orthogonal"
    search: ClassVar[Mapping[str, Dimension]] = {"lr": choice(1e-3, 3e-3, 1e-2, 3e-2), "r": choice(4, 8, 16)}
    example: ClassVar[Mapping[str, Scalar]] = {"r": 4}
    example_lr: ClassVar[float] = 0.01

    r: int = 8

    def check(self, shape: Shape | None) -> None:
        super().check(shape)
        require_int("r", self.r, 2, shape.width if shape else 65536, "the backbone's width")
        if self.r % 2:
            raise ValueError(f"r = {self.r}: must be even, because reflections come in pairs that cancel at the start")

    def map_parameters(self, inputs: int, outputs: int) -> dict[str, Parameter]:
        return {"vectors": Parameter(shape=(inputs, self.r), init=PAIRED_UNIFORM)}

    def transform(self, h: Tensor, p: Values, at: SiteContext) -> Tensor:
        u = p.vectors / p.vectors.norm(dim=1, keepdim=True)
        twice = 2 * u.new_ones(len(u), self.r).diag_embed()
        products, c = (u.mT @ u).triu(1), twice
        for _ in range(self.r - 1):
            c = twice.baddbmm(c, products, alpha=-2)
        return h.baddbmm(at.map_input @ u @ c.mT, u.mT @ at.weight, alpha=-1)
