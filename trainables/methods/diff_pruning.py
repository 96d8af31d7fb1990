"""Diff pruning: a difference to the pretrained weights, made sparse by gates that are trained with it (Guo et al. 2021, ACL).

    W' = W + z * delta,    z = clamp(3 s - 1.5, 0, 1),    s = sigmoid(alpha + log u - log(1 - u)),    u ~ U(0, 1) per step

    loss + l0 * (sum of sigmoid(alpha)): the expected number of gates that are not zero, the stretch being symmetric

With `structured` the gate of an entry is multiplied by one that its whole tensor shares. delta starts at 0, all alpha at 5
with a learning rate of 0.1 of their own; evaluation takes the gates without noise. Half of the planned epochs are trained so;
then the `keep` share of the backbone with the largest |z * delta| stays, everything else is put back to the pretrained value,
and the other half trains those differences under the fixed mask, moments and schedule fresh. No epoch of the first half can
be the trial's best. The head is trained without gates. Decay acts on delta, hence pulls towards the pretrained weights.
Traps: after few steps most gates are open, and only the projection makes the result sparse; the authors' alphas were never
scheduled or clipped with the rest, here they are; counted are differences and gates, all of which move; training takes
several copies of the model; `stored` counts the differences that are left, without their indices.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from search_spaces.language import Dimension, Scalar, choice
from trainables.methods.backbone_weights import WeightMethod
from trainables.methods.context import Values
from trainables.methods.initializers import constant
from trainables.methods.spec import BackboneTensor, Mask, MethodFamily, Parameter, Shape
from trainables.methods.validate import require_number

if TYPE_CHECKING:
    from torch import Tensor

ALPHA_INIT, GATE_LR = 5.0, 0.1
# A gate with this alpha is 1 for any noise, and has no gradient.
OPEN = 100.0


@dataclass(frozen=True, kw_only=True)
class DiffPruning(WeightMethod):
    """`keep`: share of the backbone that differs in the end; `l0`: price of an open gate; `structured`: see above."""

    title: ClassVar[str] = "Diff pruning"
    paper: ClassVar[str] = "Guo et al. 2021"
    family: ClassVar[MethodFamily] = "mask"
    search: ClassVar[dict[str, Dimension]] = {"lr": choice(1e-5, 2e-5, 5e-5, 1e-4), "l0": choice(1.25e-7, 1e-6)}
    phases: ClassVar[Literal[1, 2]] = 2
    penalised: ClassVar[bool] = True
    noisy: ClassVar[tuple[str, ...]] = ("alpha", "shared_alpha")
    example: ClassVar[Mapping[str, Scalar]] = {"keep": 0.1}

    keep: float = 0.005
    l0: float = 1.25e-7
    structured: bool = True

    def check(self, shape: Shape | None) -> None:
        require_number("keep", self.keep, 1e-6, 1)
        require_number("l0", self.l0, 0, 1)

    @property
    def mask(self) -> Mask:
        return Mask(score="change", density=self.keep)

    def is_prunable(self, name: str, parameter: Parameter) -> bool:
        return name.endswith(".delta")

    def tensors(self, tensor: BackboneTensor, shape: Shape) -> dict[str, Parameter]:
        gate = Parameter(shape=tensor.shape, init=constant(ALPHA_INIT), decayed=False, lr=GATE_LR)
        shared = (
            {"shared_alpha": Parameter(shape=(1,), init=constant(ALPHA_INIT), lr=GATE_LR)} if self.structured else {}
        )
        return {"delta": Parameter(shape=tensor.shape), "alpha": gate, **shared}

    def effective(self, weight: Tensor, p: Values, noise: Values | None) -> Tensor:
        return weight + self._difference(p, noise)

    def _difference(self, p: Values, noise: Values | None) -> Tensor:
        difference = p.delta
        for name in self.noisy[: 1 + self.structured]:
            alpha = p[name] if noise is None else p[name] + noise[name].logit()
            difference = difference * (3 * alpha.sigmoid() - 1.5).clamp(0, 1)
        return difference

    def penalty(self, everything: Mapping[str, Values]) -> Tensor:
        gates = [p[name] for p in everything.values() for name in self.noisy if name in p]
        open_ones = [alpha.sigmoid().flatten(1).sum(1) for alpha in gates]
        return self.l0 * sum(open_ones[1:], open_ones[0])

    def settled(self, p: Values) -> dict[str, Tensor]:
        opened = {name: p[name].clone().fill_(OPEN) for name in self.noisy[: 1 + self.structured]}
        return {"delta": self._difference(p, None), **opened}

    def stored(self, shape: Shape) -> float:
        return self.mask.num_kept(shape.encoder)
