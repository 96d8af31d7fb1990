"""Parallel adapter: a bottleneck module computed from the sub-layer's input instead of its output (He et al. 2022, ICLR).

    out = LN(F(x) + s (f(x W_down + b_down) W_up + b_up) + x),    f = ReLU

x is the sub-layer's input and F(x) its output after dense map and dropout; the bottleneck has no skip connection. The scale s
is a fixed number (4 in `par_bn` of the adapters library, 2 in the authors' GLUE script with r = 16), or one number per adapter
that is trained, starting at 1. W_down starts Kaiming-uniform with a = sqrt(5), W_up and the biases at zero, so that training
starts exactly at the frozen model.
Traps: while W_up is still zero, W_down and a trained s have a gradient of zero, as expected. The library's default is r = 384.
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
    """`r`: width of the bottleneck; `beside`: the sub-layers that have an adapter; `scale`: fixed s, or "learned"."""

    title: ClassVar[str] = "Parallel adapter"
    paper: ClassVar[str] = "He et al. 2022"
    family: ClassVar[MethodFamily] = "adapter"
    sites: ClassVar[tuple[Site, ...]] = BOTH
    search: ClassVar[Mapping[str, Dimension]] = {
        "lr": choice(1e-4, 3e-4, 1e-3, 3e-3),
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
