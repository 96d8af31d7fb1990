"""C3A: a matrix of circulant blocks is added to frozen linear maps (Chen et al. 2024, arXiv 2407.19342).

    y = x W + b + x D / in,   D [in, out] consists of blocks [b, b],   block[j, i] = w[(j - i) mod b],   w [b] trained per block

b is `block_size`. Multiplying by a block is a circular convolution; D may have full rank with in out / b numbers. w starts
uniform in +- sqrt(6 / (in + out)), as in peft. Because D is divided by in, training starts close to the frozen model, but not at
it. The authors and peft compute the convolution by Fourier transforms. Here D is written out and multiplied like a weight.
The division by in makes the updates of w small: it learns `ratio` times as fast as the head (peft's comparison trains it at
0.3, a rate that no head survives).
Traps: b must divide the input and the output width of every map; a larger b trains fewer numbers. peft 0.21.2 passes a wrong
gradient on to x, because its backward pass turns one of the two sequences the wrong way.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import sqrt
from typing import TYPE_CHECKING, ClassVar

from search_spaces.language import Dimension, Scalar, choice
from trainables.methods.context import SiteContext, Values
from trainables.methods.initializers import uniform
from trainables.methods.linear_maps import SIDES, LinearMapMethod
from trainables.methods.spec import MethodFamily, Parameter, Shape
from trainables.methods.validate import require_int, require_number

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class C3A(LinearMapMethod):
    """`block_size`: width of a circulant block; `ratio`: learning rate of the blocks divided by that of the head."""

    title: ClassVar[str] = "C3A"
    paper: ClassVar[str] = "Chen et al. 2024"
    family: ClassVar[MethodFamily] = "low rank"
    search: ClassVar[Mapping[str, Dimension]] = {"lr": choice(3e-4, 1e-3, 3e-3, 1e-2), "block_size": choice(32, 64)}
    removed_at_zero: ClassVar[tuple[str, ...]] = ("kernel",)
    example: ClassVar[Mapping[str, Scalar]] = {"block_size": 4, "ratio": 10.0}
    example_lr: ClassVar[float] = 0.01

    block_size: int = 64
    ratio: float = 100.0

    def check(self, shape: Shape | None) -> None:
        super().check(shape)
        require_int("block_size", self.block_size, 1, 65536)
        require_number("ratio", self.ratio, 1e-3, 1e4)
        self.require_divisor("block_size", self.block_size, shape, SIDES)

    def map_parameters(self, inputs: int, outputs: int) -> dict[str, Parameter]:
        size, bound = self.block_size, sqrt(6 / (inputs + outputs))
        shape = (inputs // size, outputs // size, size)
        return {"kernel": Parameter(shape=shape, init=uniform(-bound, bound), lr_factor=float(self.ratio))}

    def transform(self, h: Tensor, p: Values, at: SiteContext) -> Tensor:
        x, blocks = at.map_input, circulant(p.kernel)
        delta = blocks.transpose(2, 3).reshape(len(blocks), x.shape[-1], h.shape[-1])
        return h.baddbmm(x, delta, alpha=1 / x.shape[-1])


def circulant(w: Tensor) -> Tensor:
    """Returns the matrices [..., b, b] with the entry w[(j - i) mod b] in row j and column i, for w [..., b].

    In w repeated end to end and cut into rows of b + 1, each row begins one entry later than the row before it.
    """
    b = w.shape[-1]
    ends = (1,) * (w.dim() - 1)
    rows = w.roll(-1, -1).repeat(*ends, b + 1).unflatten(-1, (b, b + 1))
    return rows[..., :b].flip(-1)
