"""OFT: the input of frozen linear maps is rotated, block by block (Qiu et al. 2023, NeurIPS; computed as in OFTv2, Qiu et al.
2025).

    y = (x R) W + b,    R = diag(R_1, ..., R_n),    R_i [block_size, block_size] = (I + Q_i) (I - Q_i)^-1,    Q_i^T = -Q_i

Trained are the entries of each Q_i above its diagonal, block_size (block_size - 1) / 2 numbers that start at zero: training
starts at the frozen model. R_i is not computed with an inverse, but by the first terms of its series, as is peft's default:
I + 2 Q + 2 Q^2 + 2 Q^3 + Q^4. With it R^T R = I - 2 Q^4 + Q^8: R is orthogonal for small Q only.
What is added to the frozen model's output is x (R - I) W, one more product of the size of the map.
Traps: older versions of peft rotated the output, with another default. Angles are not bounded (peft's `coft`). Weight decay pulls
Q to zero, i.e. R to the identity.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from search_spaces.language import Dimension, Scalar, choice
from trainables.methods.context import SiteContext, Values
from trainables.methods.linear_maps import LinearMapMethod
from trainables.methods.spec import MethodFamily, Parameter, Shape
from trainables.methods.validate import require_int

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class OFT(LinearMapMethod):
    """`block_size`: width of a rotated block; must divide the input width of every map that the method acts on."""

    title: ClassVar[str] = "OFT"
    paper: ClassVar[str] = "Qiu et al. 2023"
    family: ClassVar[MethodFamily] = "orthogonal"
    search: ClassVar[Mapping[str, Dimension]] = {"lr": choice(3e-4, 1e-3, 3e-3, 1e-2), "block_size": choice(16, 32, 64)}
    removed_at_zero: ClassVar[tuple[str, ...]] = ("angles",)
    example: ClassVar[Mapping[str, Scalar]] = {"block_size": 8}

    block_size: int = 32

    def check(self, shape: Shape | None) -> None:
        super().check(shape)
        require_int("block_size", self.block_size, 2, 65536)
        self.require_divisor("block_size", self.block_size, shape, ("input",))

    def map_parameters(self, inputs: int, outputs: int) -> dict[str, Parameter]:
        size = self.block_size
        return {"angles": Parameter(shape=(inputs // size, size * (size - 1) // 2))}

    def transform(self, h: Tensor, p: Values, at: SiteContext) -> Tensor:
        q, x = skew_symmetric(p.angles, self.block_size), at.map_input
        blocks = x.unflatten(2, (-1, self.block_size)).transpose(1, 2)
        power = q @ q
        turned = blocks @ (2 * q + 2 * power + (2 * q + power) @ power)
        return h + turned.transpose(1, 2).reshape(x.shape) @ at.weight


def skew_symmetric(upper: Tensor, size: int) -> Tensor:
    """Returns the matrices Q [..., size, size] with Q^T = -Q whose entries above the diagonal, row by row, are upper [..., n]."""
    row = (upper.new_ones(size).cumsum(0) - 1)[:, None]
    low, high = row.minimum(row.T), row.maximum(row.T)
    place = low * (2 * size - low - 1) / 2 + high - low - 1
    entries = upper.index_select(-1, place.clamp(min=0).long().flatten())
    return entries.unflatten(-1, (size, size)) * (row.T - row).sign()
