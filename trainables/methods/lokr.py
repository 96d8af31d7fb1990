"""LoKr: the Kronecker product of a small matrix and a matrix of rank r is added to frozen linear maps (LyCORIS, Yeh et al.
2024, ICLR; KronA, Edalati et al. 2022).

    y = x W + b + (alpha / r) x (C (x) D),    in = m n, out = k l,    C [m, k],  D = A B [n, l],  A [n, r], B [r, l]

(x) is the Kronecker product. With x as a matrix X [m, n], x (C (x) D) is C^T X D: the product is never computed. Widths are
split into two factors that are as equal as possible, or with `factor` f into f and the rest, as in peft. D is a whole matrix
where r is at least half of the larger of n and l. C is zero at the start, so that training starts at the frozen model; the
others are uniform in +- 1 / sqrt(rows). alpha defaults to r, the scale of peft's defaults.
Traps: with equal factors it has an eighth to a tenth of LoRA's parameters, and needs higher learning rates. `factor` = 4 makes it
larger. A factor that does not divide a width is an upper bound of its first factor there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from search_spaces.language import Dimension, Scalar, choice
from trainables.methods.context import SiteContext, Values
from trainables.methods.initializers import LINEAR_UNIFORM
from trainables.methods.linear_maps import RankedMapMethod
from trainables.methods.spec import MethodFamily, Parameter, Shape
from trainables.methods.validate import require_int

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class LoKr(RankedMapMethod):
    """`r`: rank of D; `alpha`: numerator of the scale alpha / r, None for r; `factor`: first factor of widths, None for equal."""

    title: ClassVar[str] = "LoKr"
    paper: ClassVar[str] = "Yeh et al. 2024"
    family: ClassVar[MethodFamily] = "low rank"
    search: ClassVar[Mapping[str, Dimension]] = {"lr": choice(1e-3, 3e-3, 1e-2, 3e-2), "r": choice(4, 8, 16)}
    removed_at_zero: ClassVar[tuple[str, ...]] = ("left",)
    example: ClassVar[Mapping[str, Scalar]] = {"r": 2, "targets": "all"}
    example_lr: ClassVar[float] = 0.01

    factor: int | None = None

    def check(self, shape: Shape | None) -> None:
        super().check(shape)
        if self.factor is not None:
            require_int("factor", self.factor, 2, shape.width if shape else 65536, "the backbone's width")

    def map_parameters(self, inputs: int, outputs: int) -> dict[str, Parameter]:
        (m, n), (k, l) = factors(inputs, self.factor), factors(outputs, self.factor)  # noqa: E741
        left = {"left": Parameter(shape=(m, k))}
        if 2 * self.r >= max(n, l):
            return {**left, "right": Parameter(shape=(n, l), init=LINEAR_UNIFORM)}
        return {
            **left,
            "right_down": Parameter(shape=(n, self.r), init=LINEAR_UNIFORM),
            "right_up": Parameter(shape=(self.r, l), init=LINEAR_UNIFORM),
        }

    def transform(self, h: Tensor, p: Values, at: SiteContext) -> Tensor:
        K, T, _ = h.shape
        m, k = p.left.shape[1:]
        x = at.map_input.reshape(K, T * m, -1)
        turned = x @ p.right if "right" in p else x @ p.right_down @ p.right_up
        turned = turned.view(K, T, m, -1).transpose(2, 3).reshape(K, -1, m) @ p.left
        return h.add(turned.view(K, T, -1, k).transpose(2, 3).reshape(K, T, -1), alpha=self.scale)


def factors(width: int, factor: int | None) -> tuple[int, int]:
    """Returns two factors of `width`, the smaller one first: as equal as possible, or with the first one at most `factor`.

    If `factor` divides the width, it is the first one, even if it is not the smaller one.
    """
    if factor and width % factor == 0:
        return factor, width // factor
    first = max(a for a in range(1, int(width**0.5) + 1) if width % a == 0 and a <= (factor or width))
    return first, width // first
