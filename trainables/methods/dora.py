"""DoRA: LoRA on the direction of each weight, and a magnitude of its own for every output (Liu et al. 2024, ICML).

    y = x W' + b,    W' = m * V / ||V||,    V = W + (alpha / r) A B,    m [out] starting at ||W||

The norm is each output's, over the inputs, and a constant in the backward pass (section 4.3 of the paper). Starts as the frozen
model up to rounding.
||V||^2 = ||W||^2 + 2 s <W, A B> + s^2 ||A B||^2 is computed from the factors: V itself, as large as the weight, is never formed.
Trap: decay would pull m, and with it the pretrained weight, to zero; as a vector it is not decayed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from trainables.methods.context import SiteContext, Values
from trainables.methods.initializers import FROZEN
from trainables.methods.lora import LoRA
from trainables.methods.spec import Parameter

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class DoRA(LoRA):
    title: ClassVar[str] = "DoRA"
    paper: ClassVar[str] = "Liu et al. 2024"
    removed_at_zero: ClassVar[tuple[str, ...]] = ()  # the magnitude has moved

    def beside(self, inputs: int, outputs: int) -> dict[str, Parameter]:
        return {**super().beside(inputs, outputs), "magnitude": Parameter(shape=(outputs,), init=FROZEN)}

    def from_frozen(self, weight: Tensor) -> dict[str, Tensor]:
        return {"magnitude": weight.norm(dim=0)}

    def transform(self, h: Tensor, p: Values, at: SiteContext) -> Tensor:
        bias = at.frozen(at.site)[1]
        return super().transform(h - bias, p, at) * (p.magnitude / self._norm(p, at)) + bias

    def _norm(self, p: Values, at: SiteContext) -> Tensor:
        """||V|| of each output [K, 1, out]."""
        down, up, s = p.down.detach(), p.up.detach(), self.scale
        across = ((down.mT @ at.weight) * up).sum(1, keepdim=True)
        own = ((down.mT @ down @ up) * up).sum(1, keepdim=True)
        return (at.initial_value("magnitude").square() + 2 * s * across + s * s * own).sqrt()
