"""MAM adapter (He et al. 2022, ICLR): a short prefix in attention, and a scaled parallel adapter at the feed-forward sub-layer.

    attention over [K; P_K], [V; P_V] (see prefix.py),    out = FFN(x) + s (f(x W_down + b_down) W_up + b_up),    f = ReLU

x is the sub-layer's input. The adapter's output is added after the sub-layer's dropout and before the residual. W_down starts
like torch's Linear, W_up and the biases at zero. The defaults are those of the authors' GLUE script (length 16, width 16, scale
2), except that its prefix is computed by an MLP, which `mlp` = 800 enables; the paper's text uses length 30 and width 512. The
script keeps the new head frozen at random values; here it is trained.
Trap: because of the prefix, training does not start at the pretrained model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from search_spaces.language import Dimension, Scalar, choice
from trainables.methods.base import Method
from trainables.methods.context import SiteContext, Values
from trainables.methods.parallel import Parallel
from trainables.methods.prefix import Prefix
from trainables.methods.spec import MethodFamily, Parameter, Shape, Site
from trainables.methods.validate import require_int, require_number

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class MAM(Method):
    """`length` and `mlp`: settings of the prefix (prefix.py); `r`: width of the adapter's bottleneck; `scale`: s."""

    title: ClassVar[str] = "MAM adapter"
    paper: ClassVar[str] = "He et al. 2022"
    family: ClassVar[MethodFamily] = "combination"
    sites: ClassVar[tuple[Site, ...]] = ("attention.prefix", "ffn.output")
    search: ClassVar[Mapping[str, Dimension]] = {"lr": choice(1e-4, 3e-4, 1e-3, 3e-3), "r": choice(16, 64)}
    example: ClassVar[Mapping[str, Scalar]] = {"length": 2, "r": 4}

    length: int = 16
    mlp: int = 0
    r: int = 16
    scale: float = 2.0

    def check(self, shape: Shape | None) -> None:
        self._prefix.check(shape)
        require_int("r", self.r, 1, shape.width if shape else 65536, "the backbone's width")
        require_number("scale", self.scale, 0, 100)

    def parameters(self, shape: Shape, layer: int, site: Site) -> dict[str, Parameter]:
        part = self._prefix if site == "attention.prefix" else self._adapter
        return part.parameters(shape, layer, site)

    def shared(self, shape: Shape) -> dict[str, Parameter]:
        return self._prefix.shared(shape)

    @property
    def prefix_tokens(self) -> int:
        return self.length

    def prefix(self, p: Values, at: SiteContext) -> tuple[Tensor, Tensor]:
        return self._prefix.prefix(p, at)

    def transform(self, h: Tensor, p: Values, at: SiteContext) -> Tensor:
        return self._adapter.transform(h, p, at)

    def stored(self, shape: Shape) -> float:
        return self._prefix.stored(shape) + self._adapter.stored(shape)

    @property
    def _prefix(self) -> Prefix:
        return Prefix(length=self.length, mlp=self.mlp)

    @property
    def _adapter(self) -> Parallel:
        return Parallel(r=self.r, scale=self.scale)
