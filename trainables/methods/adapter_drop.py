"""AdapterDrop: Pfeiffer adapters without those of the lowest layers (Rücklé et al. 2021, EMNLP).

    specialised   layers 0 .. n - 1 have no adapter, neither in training nor in evaluation
    robust        n ~ U{0, ..., L - 1} is drawn for every step, which skips the adapters of layers 0 .. n - 1; evaluation uses all
                  adapters

L is the number of layers. All LayerNorms are frozen, as with the Pfeiffer adapter. In the specialised form nothing below layer
n is trained, so the backward pass stops there.
Traps: evaluation must not skip adapters. The notebook of the adapters library draws n from 0 to L - 2. An adapter that is
skipped in a step has a gradient of zero instead of none, so Adam's momentum and weight decay still change it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from search_spaces.language import Scalar
from trainables.methods.context import SiteContext, Values
from trainables.methods.pfeiffer import Pfeiffer
from trainables.methods.spec import Parameter, Shape, Site
from trainables.methods.validate import require_int

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class AdapterDrop(Pfeiffer):
    """The specialised form. `r`: width of the bottleneck; `dropped`: number n of the lowest layers without an adapter."""

    title: ClassVar[str] = "AdapterDrop"
    paper: ClassVar[str] = "Rücklé et al. 2021"
    example: ClassVar[Mapping[str, Scalar]] = {"r": 4, "dropped": 1}
    example_lr: ClassVar[float] = 0.01

    dropped: int = 5

    def check(self, shape: Shape | None) -> None:
        super().check(shape)
        most = shape.layers - 1 if shape else 1000
        require_int("dropped", self.dropped, 0, most, "one layer has to keep its adapter")

    def parameters(self, shape: Shape, layer: int, site: Site) -> dict[str, Parameter]:
        return {} if layer < self.dropped else super().parameters(shape, layer, site)


@dataclass(frozen=True, kw_only=True)
class AdapterDropRobust(Pfeiffer):
    """The robust form. `r`: width of the bottleneck."""

    title: ClassVar[str] = "AdapterDrop (robust)"
    paper: ClassVar[str] = "Rücklé et al. 2021"

    def transform(self, h: Tensor, p: Values, at: SiteContext) -> Tensor:
        return h + (p.dropped <= at.layer) * self.branch(h, p, at)

    def sample_step_inputs(
        self, shape: Shape, random: np.random.Generator
    ) -> Mapping[str, Sequence[float] | np.ndarray]:
        return {"dropped": random.integers(0, shape.layers, 1)}

    def eval_inputs(self, shape: Shape) -> Mapping[str, Sequence[float] | np.ndarray]:
        return {"dropped": [0]}
