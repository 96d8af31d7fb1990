"""ProPETL: all layers share one Pfeiffer adapter, and each layer uses a learned subset of its weights (Zeng et al. 2023, ACL).

    W_l = W * M_l,    M_l = 1 for the largest |s_l| of a matrix, else 0,    for W_down and W_up;    l is the layer

The biases are shared without a mask. `share` is the fraction of weights that a layer uses (called sparsity in the authors'
code). The backward pass treats M_l as |s_l| (straight-through estimator). The scores s_l have their own learning rate and no
weight decay. After training, the scores can be replaced by their masks, one bit per score.
As in the authors' code for RoBERTa, the shared adapter is initialised like a Pfeiffer adapter, the scores are uniform with
absolute values up to 1 / sqrt(columns), and floor((1 - share) n) of a matrix's n weights are masked. (This is the
bound of Kaiming initialisation for the transposed matrix.)
Traps: three numbers have to be distinguished: trained parameters (the adapter and all scores), stored parameters (the adapter
and one bit per score), and the adapter's parameters. Masks are computed anew in every forward pass, from the k-th smallest
|s_l| instead of by sorting, so scores equal to it are masked, too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from search_spaces.language import Dimension, Scalar, choice
from trainables.methods.base import Method
from trainables.methods.context import SiteContext, Values
from trainables.methods.initializers import uniform
from trainables.methods.pfeiffer import Pfeiffer
from trainables.methods.spec import MethodFamily, Parameter, Shape, Site
from trainables.methods.validate import require_number

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class ProPETL(Method):
    """`r`: width of the bottleneck; `share`: fraction of weights that a layer uses; `mask_lr`: peak learning rate of scores."""

    title: ClassVar[str] = "ProPETL (adapter)"
    paper: ClassVar[str] = "Zeng et al. 2023"
    family: ClassVar[MethodFamily] = "combination"
    search: ClassVar[Mapping[str, Dimension]] = {
        "lr": choice(1e-4, 3e-4, 1e-3, 3e-3),
        "mask_lr": choice(1e-3, 3e-3, 1e-2),
    }
    sites: ClassVar[tuple[Site, ...]] = ("ffn.output",)
    example: ClassVar[Mapping[str, Scalar]] = {"r": 4}
    example_lr: ClassVar[float] = 0.01

    r: int = 64
    share: float = 0.5
    mask_lr: float = 3e-3

    def check(self, shape: Shape | None) -> None:
        self._adapter.check(shape)
        require_number("share", self.share, 0.01, 1.0)
        require_number("mask_lr", self.mask_lr, 0.0, 10.0)

    def parameters(self, shape: Shape, layer: int, site: Site) -> dict[str, Parameter]:
        return {
            f"{name}_scores": Parameter(
                shape=(rows, columns),
                init=uniform(-(columns**-0.5), columns**-0.5),
                decayed=False,
                lr=self.mask_lr,
            )
            for name, rows, columns in (("down", shape.width, self.r), ("up", self.r, shape.width))
        }

    def shared(self, shape: Shape) -> dict[str, Parameter]:
        return self._adapter.parameters(shape, 0, "ffn.output")

    def transform(self, h: Tensor, p: Values, at: SiteContext) -> Tensor:
        masked = {name: p[name] * self.chosen(p[f"{name}_scores"]) for name in ("down", "up")}
        return self._adapter.transform(h, Values({**p, **masked}), at)

    def chosen(self, scores: Tensor) -> Tensor:
        """Returns the mask of zeros and ones [K, ...] for `scores`, whose gradient is passed on to the scores' magnitudes."""
        size = scores.abs()
        removed = int((1 - self.share) * scores[0].numel())
        if removed == 0:
            return size - size.detach() + 1
        limit = size.detach().flatten(1).kthvalue(removed).values
        return (size.detach() > limit[:, None, None]) + (size - size.detach())

    def stored(self, shape: Shape) -> float:
        prototype = 2 * shape.width * self.r
        return prototype + self.r + shape.width + shape.layers * prototype / 32

    @property
    def _adapter(self) -> Pfeiffer:
        """The adapter that all layers share."""
        return Pfeiffer(r=self.r)
