"""DyLoRA: LoRA that works at every rank up to r after one training (Valipour et al. 2023, EACL).

    y = x W + b + (alpha / n) x A[:, :n] B[:n],    n drawn uniformly from 1..r for each training step, the same in all layers

Evaluation and the test use all r. `frozen`: only column n of A and row n of B learn in a step (the paper's frozen variant); by
default all up to n do.
The released code multiplies each factor by sqrt(r / n) under alpha / r, which is the alpha / n above.
Trap: what a step does not train has a zero gradient in it, but Adam's moments go on moving it, here as in the released code.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from trainables.methods.context import SiteContext, Values
from trainables.methods.lora import LoRA
from trainables.methods.spec import Shape

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class DyLoRA(LoRA):
    """`r`: the largest rank."""

    title: ClassVar[str] = "DyLoRA"
    paper: ClassVar[str] = "Valipour et al. 2023"

    frozen: bool = False

    def check(self, shape: Shape | None) -> None:
        super().check(shape)
        if not isinstance(self.frozen, bool):
            raise ValueError(f"frozen = {self.frozen!r}: must be True or False")

    def sample_step_inputs(self, shape: Shape, random: np.random.Generator) -> Mapping[str, ArrayLike]:
        return self._at_rank(int(random.integers(1, self.r + 1)))

    def eval_inputs(self, shape: Shape) -> Mapping[str, ArrayLike]:
        return self._at_rank(self.r)

    def transform(self, h: Tensor, p: Values, at: SiteContext) -> Tensor:
        down, up = p.down, p.up
        if self.frozen:
            down, up = _learning(down, p.learns), _learning(up, p.learns.mT)
        return h.baddbmm(at.map_input @ down * p.scales, up)

    def _at_rank(self, n: int) -> dict[str, ArrayLike]:
        """Factors of the r columns: the scale of those in use, and 1 for the last of these."""
        scales = [self.strength / n if i < n else 0.0 for i in range(self.r)]
        return {"scales": scales, "learns": [float(i == n - 1) for i in range(self.r)]}


def _learning(factor: Tensor, share: Tensor) -> Tensor:
    """The same numbers, with a gradient only where `share` is 1."""
    fixed = factor.detach()
    return fixed + (factor - fixed) * share
