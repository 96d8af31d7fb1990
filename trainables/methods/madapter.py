"""MAdapter: a Houlsby adapter with a bottleneck of half the width and additional square layers inside it.

    A(h) = h + f(... f(f(h W_down) W_mid,1) ... W_mid,n) W_up,    W_down [D, R'], W_mid [R', R'], W_up [R', D], f = ReLU

f follows the down-projection and every middle layer, but not the up-projection. All layers have biases, omitted here. R' is half
the width of the adapter that MAdapter is compared with. Sites, trained LayerNorms and other initial values are as in adapter.py.
Trap: the paper does not say how W_mid is initialised. With sigma = 1e-2, each middle layer scales the branch by about 0.06, and
three of them make it almost zero for many steps. The default here is "identity", which starts as the plain adapter of width R'.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from search_spaces.language import Dimension, Scalar, choice
from trainables.methods.adapter import ADAPTER_LR, Adapter
from trainables.methods.context import SiteContext, Values
from trainables.methods.initializers import IDENTITY, RELU_UNIFORM, truncated
from trainables.methods.spec import Parameter, Shape, Site
from trainables.methods.validate import require_int, require_one_of

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class MAdapter(Adapter):
    """`r`: width R' of the bottleneck; `n_mid`: number of middle layers; `mid_init`: initialisation of the middle layers."""

    title: ClassVar[str] = "MAdapter"
    paper: ClassVar[str] = "the MAdapter paper"

    search: ClassVar[Mapping[str, Dimension]] = {
        "lr": ADAPTER_LR,
        "r": choice(16, 32, 64),
        "n_mid": choice(1, 2, 3),
    }
    example: ClassVar[Mapping[str, Scalar]] = {"r": 4, "n_mid": 2}

    r: int = 32
    n_mid: int = 1
    mid_init: Literal["identity", "kaiming", "normal"] = "identity"

    def check(self, shape: Shape | None) -> None:
        super().check(shape)
        require_int("n_mid", self.n_mid, 1, 8)
        require_one_of("mid_init", self.mid_init, ("identity", "kaiming", "normal"))

    def parameters(self, shape: Shape, layer: int, site: Site) -> dict[str, Parameter]:
        init = {"identity": IDENTITY, "kaiming": RELU_UNIFORM, "normal": truncated(self.init_scale)}[self.mid_init]
        declared = super().parameters(shape, layer, site)
        for i in range(self.n_mid):
            declared[f"mid{i}"] = Parameter(shape=(self.r, self.r), init=init)
            declared[f"mid{i}_bias"] = Parameter(shape=(self.r,))
        return declared

    def transform(self, h: Tensor, p: Values, at: SiteContext) -> Tensor:
        z = (h @ p.down + p.down_bias).relu()
        for i in range(self.n_mid):
            z = (z @ p[f"mid{i}"] + p[f"mid{i}_bias"]).relu()
        return h + z @ p.up + p.up_bias
