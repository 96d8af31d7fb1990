"""PiSSA: LoRA that is initialised with the largest singular values and vectors of each weight (Meng et al. 2024, NeurIPS).

    y = x (W - s A0 B0) + b + s x A B,    W = U S V^T,    A0 = U_r sqrt(S_r / s), B0 = sqrt(S_r / s) V_r^T,    s = alpha / r

Index r stands for the r largest singular values. A starts at A0 and B at B0, so that both have a gradient in the first step.
Training starts at the frozen model, up to rounding. alpha defaults to r, which gives s = 1. Trials share W, so W is never
changed: A0 and B0 are stored once per backbone, and their product is subtracted in the forward pass.
Trap: A and B contain a part of the pretrained model, and weight decay pulls them to zero. PiSSA needs lower learning rates than
LoRA.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from search_spaces.language import Dimension, choice
from trainables.methods.context import SiteContext, Values
from trainables.methods.initializers import FROZEN
from trainables.methods.lora import LoRA
from trainables.methods.spec import Parameter

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class PiSSA(LoRA):
    """`alpha`: numerator of the scale s = alpha / r, None for r."""

    title: ClassVar[str] = "PiSSA"
    paper: ClassVar[str] = "Meng et al. 2024"
    search: ClassVar[Mapping[str, Dimension]] = {"lr": choice(1e-4, 3e-4, 1e-3, 3e-3), "r": choice(4, 8, 16)}
    removed_at_zero: ClassVar[tuple[str, ...]] = ()  # zeros would also remove the largest singular values of the weight
    alpha_per_rank: ClassVar[int] = 1

    def map_parameters(self, inputs: int, outputs: int) -> dict[str, Parameter]:
        return {
            "down": Parameter(shape=(inputs, self.r), init=FROZEN),
            "up": Parameter(shape=(self.r, outputs), init=FROZEN),
        }

    def from_frozen(self, weight: Tensor) -> dict[str, Tensor]:
        u, s, v = weight.svd()
        root = (s[: self.r] / self.scale).sqrt()
        return {"down": u[:, : self.r] * root, "up": (v[:, : self.r] * root).T.contiguous()}

    def transform(self, h: Tensor, p: Values, at: SiteContext) -> Tensor:
        residual = h - self.scale * (at.map_input @ at.initial_value("down")) @ at.initial_value("up")
        return super().transform(residual, p, at)
