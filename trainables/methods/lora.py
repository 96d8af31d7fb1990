"""LoRA: a trained matrix product of rank r is added to frozen linear maps (Hu et al. 2022, ICLR).

    y = x W + b + (alpha / r) x A B,    A [in, r] uniform in +- 1 / sqrt(in), B [r, out] = 0 at the start

It is added to the query and value maps, or to all linear maps of a layer: six, or seven with a gated feed-forward part. In
addition only the head is trained. Because B is zero, training starts at the frozen model. The paper draws A from a normal
distribution; its code and peft draw it as above. No additional dropout is applied to x.
Traps: the factor alpha / r couples the learning rate to the rank, so alpha defaults to 2 r. A's gradient in the first step is
zero, because B is zero. The published GLUE scores of MRPC, RTE and STS-B started from a model fine-tuned on MNLI.
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
class LoRA(RankedMapMethod):
    """`r`: rank; `alpha`: numerator of the scale alpha / r, None for 2 r."""

    title: ClassVar[str] = "LoRA"
    paper: ClassVar[str] = "Hu et al. 2022"
    family: ClassVar[MethodFamily] = "low rank"
    search: ClassVar[Mapping[str, Dimension]] = {"lr": choice(3e-4, 1e-3, 3e-3, 1e-2), "r": choice(4, 8, 16)}
    removed_at_zero: ClassVar[tuple[str, ...]] = ("up",)
    example: ClassVar[Mapping[str, Scalar]] = {"r": 4}
    alpha_per_rank: ClassVar[int] = 2

    def map_parameters(self, inputs: int, outputs: int) -> dict[str, Parameter]:
        return {
            "down": Parameter(shape=(inputs, self.r), init=LINEAR_UNIFORM),
            "up": Parameter(shape=(self.r, outputs)),
        }

    def transform(self, h: Tensor, p: Values, at: SiteContext) -> Tensor:
        return h.baddbmm(at.map_input @ p.down, p.up, alpha=self.scale)
