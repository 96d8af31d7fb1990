"""RoAd: pairs of outputs of frozen linear maps are rotated and scaled in their plane (Liao and Monz 2024, NeurIPS).

    y_i = a_i cos(t_i) h_i - c_i sin(u_i) h_j,    y_j = a_j cos(t_j) h_j + c_j sin(u_j) h_i,    h = x W + b

Outputs i and j are a pair: places p and p + group_size / 2 in a group of `group_size` outputs. Variant "road_1" has one angle
and one scale for both outputs of a pair, in both terms: a rotation, times a scale. In "road_2" each output has its own, in
"road_4" also each of the two terms. Angles start at zero and scales at one, which is the frozen model.
As in peft. Which outputs make a pair depends on `group_size` alone, which changes no property of the method.
Traps: the vectors are not decayed, because weight decay would pull the scales, and with them the outputs, to zero. RoAd needs
learning rates of 1e-3 to 1e-2.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from search_spaces.language import Dimension, Scalar, choice
from trainables.methods.context import SiteContext, Values
from trainables.methods.initializers import ONES
from trainables.methods.linear_maps import LinearMapMethod
from trainables.methods.spec import MethodFamily, Parameter, Shape
from trainables.methods.validate import require_int, require_one_of

if TYPE_CHECKING:
    from torch import Tensor

# Angles, and as many scales, per pair of outputs.
PER_PAIR = {"road_1": 1, "road_2": 2, "road_4": 4}


@dataclass(frozen=True, kw_only=True)
class RoAd(LinearMapMethod):
    """`variant`: how many angles and scales a pair has; `group_size`: even, must divide the output width of every map."""

    title: ClassVar[str] = "RoAd"
    paper: ClassVar[str] = "Liao and Monz 2024"
    family: ClassVar[MethodFamily] = "scaling and bias"
    search: ClassVar[Mapping[str, Dimension]] = {
        "lr": choice(1e-3, 3e-3, 1e-2, 3e-2),
        "variant": choice("road_1", "road_2", "road_4"),
    }
    example: ClassVar[Mapping[str, Scalar]] = {"group_size": 8, "targets": "all"}
    example_lr: ClassVar[float] = 0.01

    targets: Literal["qv", "all"] = "all"
    variant: str = "road_1"
    group_size: int = 64

    def check(self, shape: Shape | None) -> None:
        super().check(shape)
        require_one_of("variant", self.variant, tuple(PER_PAIR))
        require_int("group_size", self.group_size, 2, 65536)
        if self.group_size % 2:
            raise ValueError(f"group_size = {self.group_size}: must be even, because a group consists of pairs")
        self.require_divisor("group_size", self.group_size, shape, ("output",))

    def map_parameters(self, inputs: int, outputs: int) -> dict[str, Parameter]:
        shape = (outputs // 2 * PER_PAIR[self.variant],)
        return {"angle": Parameter(shape=shape), "scale": Parameter(shape=shape, init=ONES)}

    def transform(self, h: Tensor, p: Values, at: SiteContext) -> Tensor:
        # The dimensions of what follows: K, T, groups, the two terms, the two halves of a group, half a group.
        own, other = (PER_PAIR[self.variant] == 4) + 1, min(PER_PAIR[self.variant], 2)
        angle, scale = (v.unflatten(2, (-1, own, other, self.group_size // 2)) for v in (p.angle, p.scale))
        halves = h.unflatten(2, (-1, 2, self.group_size // 2))
        signs = h.new_ones(2, 1).cumsum(0) * 2 - 3  # -1 for the first half, 1 for the second
        turned = halves * (scale * angle.cos())[..., 0, :, :]
        crossed = halves.flip(-2) * signs * (scale * angle.sin())[..., -1, :, :]
        return (turned + crossed).view(h.shape)
