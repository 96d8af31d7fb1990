"""DyLoRA: LoRA trained such that it can be used at every rank up to r afterwards (Valipour et al. 2023, EACL).

    y = x W + b + (alpha / n) x A[:, :n] B[:n],    n drawn uniformly from 1..r for each training step, the same in all layers

Evaluation and the test use all r ranks. With `frozen`, only column n of A and row n of B get a gradient in a step (the paper's
frozen variant); by default all columns and rows up to n do. The released code multiplies each factor by sqrt(r / n) and the
product by alpha / r, which is equivalent to alpha / n.
Trap: columns and rows that are not trained in a step have a gradient of zero, but Adam's moments still change them, here as in
the released code.
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
    """`r`: the largest rank; `frozen`: train only the last of the n ranks in a step."""

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
        """Returns two vectors [r] for rank n: "scales" is alpha / n for the first n ranks and 0 for the others.

        "learns" is 1 for rank n and 0 elsewhere.
        """
        scales = [self.strength / n if i < n else 0.0 for i in range(self.r)]
        return {"scales": scales, "learns": [float(i == n - 1) for i in range(self.r)]}


def _learning(factor: Tensor, share: Tensor) -> Tensor:
    """Returns `factor` unchanged, with its gradient multiplied by `share`: 1 where it is trained, 0 elsewhere."""
    fixed = factor.detach()
    return fixed + (factor - fixed) * share
