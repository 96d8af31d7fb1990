"""LoRA-FA: LoRA of which only B is trained (Zhang et al. 2023, arXiv 2308.03303).

    y = x W + b + (alpha / r) x A B,    A [in, r] stays as it was drawn, B [r, out] = 0 at the start

A is drawn as LoRA's, by each trial and map anew. Because it needs no gradient, a map's input x need not be kept for the backward
pass: the r numbers x A suffice. Training starts at the frozen model.
Differs from peft, whose optimizer (`create_lorafa_optimizer`) multiplies the gradient of B by (A^T A)^-1 r^2 / alpha^2, as the
authors' later code does. Here as in the paper, B has its plain gradient.
Traps: A is random, so it must be kept with B, or the seed it was drawn from; both are counted as stored, B alone as trained. An
update lies in the r directions that were drawn, so that r has to be larger than LoRA's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from search_spaces.language import Dimension, choice
from trainables.methods.context import SiteContext, Values
from trainables.methods.initializers import LINEAR_UNIFORM
from trainables.methods.lora import LoRA
from trainables.methods.spec import Parameter

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class LoRAFA(LoRA):
    title: ClassVar[str] = "LoRA-FA"
    paper: ClassVar[str] = "Zhang et al. 2023"
    search: ClassVar[Mapping[str, Dimension]] = {"lr": choice(3e-4, 1e-3, 3e-3, 1e-2), "r": choice(8, 16, 32)}
    example_lr: ClassVar[float] = 0.01

    r: int = 16

    def map_parameters(self, inputs: int, outputs: int) -> dict[str, Parameter]:
        return {
            "down": Parameter(shape=(inputs, self.r), init=LINEAR_UNIFORM, trained=False),
            "up": Parameter(shape=(self.r, outputs)),
        }

    def transform(self, h: Tensor, p: Values, at: SiteContext) -> Tensor:
        return h.baddbmm(at.map_input @ p.down.detach(), p.up, alpha=self.scale)
