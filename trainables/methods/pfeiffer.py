"""Pfeiffer adapter: one bottleneck per layer, after the feed-forward sub-layer (Pfeiffer et al. 2021, AdapterFusion, EACL).

    z = LN(h + x),    A(h) = h + f(z W_down + b_down) W_up + b_up,    layer output LN(A(h) + x),    f = ReLU

h is the sub-layer's output after its dense and dropout, x its input, LN the pretrained LayerNorm that follows: it is applied
twice. As in the `seq_bn` configuration of the adapters library: both matrices start with N(0, 0.02), biases at zero, all
LayerNorms stay frozen; its reduction factor 16 is r = 48.
Traps: a Houlsby adapter without its attention half is not this: what the bottleneck reads is normalised there, and the skip
connection starts before the add. Equal r gives as many parameters as an attention-only adapter, so compare at equal r.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from search_spaces.language import Dimension, Scalar, choice
from trainables.methods.base import Method
from trainables.methods.context import SiteContext, Values
from trainables.methods.initializers import normal
from trainables.methods.spec import MethodFamily, Parameter, Shape, Site
from trainables.methods.validate import require_int

if TYPE_CHECKING:
    from torch import Tensor

STD = 0.02


@dataclass(frozen=True, kw_only=True)
class Pfeiffer(Method):
    """`r`: width of the bottleneck."""

    title: ClassVar[str] = "Pfeiffer adapter"
    paper: ClassVar[str] = "Pfeiffer et al. 2021"
    family: ClassVar[MethodFamily] = "adapter"
    sites: ClassVar[tuple[Site, ...]] = ("ffn.output",)
    search: ClassVar[Mapping[str, Dimension]] = {"lr": choice(1e-4, 3e-4, 5e-4, 1e-3), "r": choice(16, 48, 64)}
    removed_at_zero: ClassVar[tuple[str, ...]] = ("up", "up_bias")
    example: ClassVar[Mapping[str, Scalar]] = {"r": 4}

    r: int = 48

    def check(self, shape: Shape | None) -> None:
        require_int("r", self.r, 1, shape.width if shape else 65536, "the backbone's width")

    def parameters(self, shape: Shape, layer: int, site: Site) -> dict[str, Parameter]:
        d, r = shape.width, self.r
        return {
            "down": Parameter(shape=(d, r), init=normal(STD)),
            "down_bias": Parameter(shape=(r,)),
            "up": Parameter(shape=(r, d), init=normal(STD)),
            "up_bias": Parameter(shape=(d,)),
        }

    def transform(self, h: Tensor, p: Values, at: SiteContext) -> Tensor:
        return h + self.branch(h, p, at)

    def branch(self, h: Tensor, p: Values, at: SiteContext) -> Tensor:
        """What is added to the sub-layer's output h."""
        z = at.norm(h + at.residual)
        return (z @ p.down + p.down_bias).relu() @ p.up + p.up_bias
