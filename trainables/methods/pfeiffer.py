"""Pfeiffer adapter: one bottleneck per layer, after the feed-forward sub-layer (Pfeiffer et al. 2021, AdapterFusion, EACL).

    z = LN(h + x),    A(h) = h + f(z W_down + b_down) W_up + b_up,    layer output LN(A(h) + x),    f = ReLU

h is the sub-layer's output after its dense map and dropout, x the sub-layer's input, and LN the pretrained LayerNorm that
follows, which is applied twice. As in the configuration `seq_bn` of the adapters library, both matrices start from N(0, 0.02),
biases start at zero, and all LayerNorms stay frozen. The library's reduction factor 16 corresponds to r = 48.
Traps: this is not a Houlsby adapter without the attention module: here the bottleneck's input is normalised and includes the
residual, while its skip connection starts at h. It has as many parameters as a Houlsby adapter at one of the two places, so
compare at equal r.
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
from trainables.methods.validate import require_int, require_norm_of_sum

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
    search: ClassVar[Mapping[str, Dimension]] = {"lr": choice(1e-4, 3e-4, 1e-3, 3e-3), "r": choice(16, 48, 64)}
    removed_at_zero: ClassVar[tuple[str, ...]] = ("up", "up_bias")
    example: ClassVar[Mapping[str, Scalar]] = {"r": 4}

    r: int = 48

    def check(self, shape: Shape | None) -> None:
        require_int("r", self.r, 1, shape.width if shape else 65536, "the backbone's width")
        require_norm_of_sum(shape)

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
        """Returns the bottleneck's output [K, T, D], which is added to the sub-layer's output h."""
        z = at.norm(h + at.residual)
        return (z @ p.down + p.down_bias).relu() @ p.up + p.up_bias
