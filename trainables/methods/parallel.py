"""Parallel adapter: a bottleneck beside the sub-layer instead of behind it (He et al. 2022, ICLR).

    out = LN(F(x) + s (f(x W_down + b_down) W_up + b_up) + x),    f = ReLU

x is the sub-layer's input, F(x) its output after dense and dropout; there is no skip connection inside. s is a fixed number
(4 in the adapters library's `par_bn`, 2 in the authors' GLUE script with r = 16) or a number per adapter that is learned
from 1. W_down starts Kaiming-uniform with a = sqrt 5, W_up and the biases at zero: exactly the bare encoder.
Traps: W_down and a learned s get no gradient before W_up has moved, which is expected; the library's default r is 384.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from search_spaces.language import Dimension, Scalar, choice
from trainables.methods.base import Method
from trainables.methods.context import SiteContext, Values
from trainables.methods.initializers import LINEAR_UNIFORM, ONES
from trainables.methods.spec import MethodFamily, Parameter, Shape, Site
from trainables.methods.validate import require_int, require_number, require_one_of

if TYPE_CHECKING:
    from torch import Tensor

BOTH: tuple[Site, ...] = ("attention.output", "ffn.output")
BESIDE: dict[str, tuple[Site, ...]] = {"attention": BOTH[:1], "ffn": BOTH[1:], "both": BOTH}


@dataclass(frozen=True, kw_only=True)
class Parallel(Method):
    """`r`: width of the bottleneck; `beside`: which sub-layers have one; `scale`: s, or "learned"."""

    title: ClassVar[str] = "Parallel adapter"
    paper: ClassVar[str] = "He et al. 2022"
    family: ClassVar[MethodFamily] = "adapter"
    sites: ClassVar[tuple[Site, ...]] = BOTH
    search: ClassVar[Mapping[str, Dimension]] = {
        "lr": choice(1e-4, 3e-4, 5e-4, 1e-3),
        "r": choice(16, 64),
        "scale": choice(1.0, 4.0),
    }
    removed_at_zero: ClassVar[tuple[str, ...]] = ("up", "up_bias")
    example: ClassVar[Mapping[str, Scalar]] = {"r": 4, "beside": "both", "scale": "learned"}

    r: int = 64
    beside: Literal["ffn", "attention", "both"] = "ffn"
    scale: float | Literal["learned"] = 4.0

    def check(self, shape: Shape | None) -> None:
        require_int("r", self.r, 1, shape.width if shape else 65536, "the backbone's width")
        require_one_of("beside", self.beside, tuple(BESIDE))
        if isinstance(self.scale, str):
            require_one_of("scale", self.scale, ("learned", "a number"))
        else:
            require_number("scale", self.scale, 1e-6, 1e6)

    def parameters(self, shape: Shape, layer: int, site: Site) -> dict[str, Parameter]:
        d, r = shape.width, self.r
        if site not in BESIDE[self.beside]:
            return {}
        scale = {"scale": Parameter(shape=(1,), init=ONES)} if self.scale == "learned" else {}
        return {
            "down": Parameter(shape=(d, r), init=LINEAR_UNIFORM),
            "down_bias": Parameter(shape=(r,)),
            "up": Parameter(shape=(r, d)),
            "up_bias": Parameter(shape=(d,)),
            **scale,
        }

    def transform(self, h: Tensor, p: Values, at: SiteContext) -> Tensor:
        scale = p.scale if self.scale == "learned" else self.scale
        return h + scale * ((at.sublayer_input @ p.down + p.down_bias).relu() @ p.up + p.up_bias)
