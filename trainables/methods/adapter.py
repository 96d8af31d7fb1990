"""Houlsby adapter: two bottleneck modules per layer of a frozen backbone (Houlsby et al. 2019, ICML).

    A(h) = h + f(h W_down + b_down) W_up + b_up,    W_down [D, R], W_up [R, D], f = ReLU

h is the output of the attention or feed-forward sub-layer after its dense map and dropout, before the residual is added, as in
the authors' code (their text says after the skip connection). All LayerNorms and the head are trained too; BERT's pooler is
not. Both matrices start from a normal distribution with sigma 1e-2, truncated at two sigma, as in the paper (their code uses
1e-3). Section 3.6 of the paper reports that results do not suffer down to sigma 1e-7, but do above 1e-2.
Traps: if W_up were zero at the start, all gradient-based pruning scores would be zero. Adapters need learning rates about ten
times those of full fine-tuning.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from search_spaces.language import Dimension, Scalar, choice
from trainables.methods.base import Method
from trainables.methods.context import SiteContext, Values
from trainables.methods.initializers import truncated
from trainables.methods.spec import MethodFamily, Parameter, Shape, Site
from trainables.methods.validate import require_int, require_number

if TYPE_CHECKING:
    from torch import Tensor

SIGMA = 1e-2
ADAPTER_LR = choice(1e-4, 3e-4, 1e-3, 3e-3)


@dataclass(frozen=True, kw_only=True)
class Adapter(Method):
    """`r`: width R of the bottleneck; `init_scale`: sigma of the normal distribution from which both matrices are drawn."""

    title: ClassVar[str] = "Adapter"
    paper: ClassVar[str] = "Houlsby et al. 2019"
    family: ClassVar[MethodFamily] = "adapter"
    sites: ClassVar[tuple[Site, ...]] = ("attention.output", "ffn.output")
    search: ClassVar[Mapping[str, Dimension]] = {"lr": ADAPTER_LR, "r": choice(32, 64, 128)}
    norms: ClassVar[Literal["none", "biases", "all"]] = "all"
    removed_at_zero: ClassVar[tuple[str, ...]] = ("up", "up_bias")
    example: ClassVar[Mapping[str, Scalar]] = {"r": 4}

    r: int = 64
    init_scale: float = SIGMA

    def check(self, shape: Shape | None) -> None:
        require_int("r", self.r, 1, shape.width if shape else 65536, "the backbone's width")
        require_number("init_scale", self.init_scale, 1e-12, 100)

    def parameters(self, shape: Shape, layer: int, site: Site) -> dict[str, Parameter]:
        d, r = shape.width, self.r
        return {
            "down": Parameter(shape=(d, r), init=truncated(self.init_scale)),
            "down_bias": Parameter(shape=(r,)),
            "up": Parameter(shape=(r, d), init=truncated(self.init_scale)),
            "up_bias": Parameter(shape=(d,)),
        }

    def transform(self, h: Tensor, p: Values, at: SiteContext) -> Tensor:
        return h + (h @ p.down + p.down_bias).relu() @ p.up + p.up_bias
