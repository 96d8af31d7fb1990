"""Diff pruning: a trained difference to the pretrained weights, made sparse by gates trained with it (Guo et al. 2021, ACL).

    W' = W + z * delta,    z = clamp(3 s - 1.5, 0, 1),    s = sigmoid(alpha + log u - log(1 - u)),    u ~ U(0, 1) per step

    loss + l0 * (sum of sigmoid(alpha)): since z is stretched symmetrically, the sum is the expected number of gates above zero

Here every entry of a weight has a gate. With `structured`, it is multiplied by another gate that its whole tensor shares. delta
starts at 0 and every alpha at 5, with its own learning rate of 0.1. Evaluation computes the gates without noise. The first half
of the planned epochs trains delta and alpha. Then the fraction `keep` of the backbone with the largest |z * delta| is kept and
all other entries are reset to the pretrained values. The second half trains the kept differences under this fixed mask, with
new Adam moments and schedule. The trial's best epoch is always one of the second half. The head is trained without gates.
Weight decay is applied to delta, so it pulls weights towards their pretrained values.
Traps: after few steps most gates are open, and only the selection makes the result sparse. The alphas are scheduled and clipped
like all other parameters, unlike in the authors' code. Counts include differences and gates, since all are trained. Training
needs memory for several copies of the model. `stored` counts the kept differences, without their indices.
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
# A gate with this alpha is 1 whatever the noise, and has a gradient of zero.
OPEN = 100.0


@dataclass(frozen=True, kw_only=True)
class DiffPruning(WeightMethod):
    """Settings of diff pruning.

    `keep`: fraction of the backbone's parameters that may differ from the pretrained values after training; `l0`: penalty per
    open gate; `structured`: whether each tensor has a shared gate in addition to one gate per entry.
    """

    title: ClassVar[str] = "Diff pruning"
    paper: ClassVar[str] = "Guo et al. 2021"
    family: ClassVar[MethodFamily] = "mask"
    search: ClassVar[dict[str, Dimension]] = {"lr": choice(1e-5, 3e-5, 1e-4, 3e-4), "l0": choice(1.25e-7, 1e-6)}
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
