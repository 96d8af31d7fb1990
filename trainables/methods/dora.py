"""DoRA: LoRA changes the direction of a weight, and each output has a separately trained magnitude (Liu et al. 2024, ICML).

    y = x W' + b,    W' = m * V / ||V||,    V = W + (alpha / r) A B,    m [out] = ||W|| at the start

||.|| is the norm over the inputs, one value per output. It is treated as a constant in the backward pass (section 4.3 of the
paper). Training starts at the frozen model, up to rounding. V is as large as the weight and is never computed; with s = alpha /
r, its norm is computed from the factors: ||V||^2 = ||W||^2 + 2 s <W, A B> + s^2 ||A B||^2.
Trap: weight decay would pull m, and with it the pretrained weight, to zero. m is a vector and therefore not decayed here.
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
    removed_at_zero: ClassVar[tuple[str, ...]] = ()  # even with up = 0 the trained magnitude differs from ||W||

    def map_parameters(self, inputs: int, outputs: int) -> dict[str, Parameter]:
        return {**super().map_parameters(inputs, outputs), "magnitude": Parameter(shape=(outputs,), init=FROZEN)}

    def from_frozen(self, weight: Tensor) -> dict[str, Tensor]:
        return {"magnitude": weight.norm(dim=0)}

    def transform(self, h: Tensor, p: Values, at: SiteContext) -> Tensor:
        bias = at.frozen(at.site)[1]
        return super().transform(h - bias, p, at) * (p.magnitude / self._norm(p, at)) + bias

    def _norm(self, p: Values, at: SiteContext) -> Tensor:
        """Returns ||V|| of each output as [K, 1, out]."""
        down, up, s = p.down.detach(), p.up.detach(), self.scale
        across = ((down.mT @ at.weight) * up).sum(1, keepdim=True)
        own = ((down.mT @ down @ up) * up).sum(1, keepdim=True)
        return (at.initial_value("magnitude").square() + 2 * s * across + s * s * own).sqrt()
