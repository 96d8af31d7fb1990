"""LT-SFT: sparse fine-tuning of the parameters that change most in full fine-tuning (Ansell et al. 2022, ACL).

    1. train all theta    2. M = 1 for the largest |theta_1 - theta_0|, else 0    3. reset to theta_0, train with g <- g * M

The method is named after the lottery ticket hypothesis. theta_0 are the pretrained values of the whole backbone, theta_1 those
after the first phase. Each phase has half of the planned epochs. The first is full fine-tuning. The second starts at the same
initial values (including the head's, as in the authors' code) with new Adam moments, schedule and warm-up. The first phase's
result is not sparse, so the trial's best epoch is always one of the second phase. There is one round of selection; the authors'
optional L1 penalty |theta - theta_0| is not implemented.
Traps: `counts` includes all parameters, because all are trained in the first phase. `stored` counts the values that the second
phase changes, without their indices.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from search_spaces.language import Dimension, Scalar, choice
from trainables.methods.full import Full
from trainables.methods.spec import Mask, MethodFamily, Shape
from trainables.methods.validate import require_number


@dataclass(frozen=True, kw_only=True)
class LtSft(Full):
    """`keep`: fraction of the backbone's parameters that the second phase trains."""

    title: ClassVar[str] = "LT-SFT"
    paper: ClassVar[str] = "Ansell et al. 2022"
    family: ClassVar[MethodFamily] = "mask"
    search: ClassVar[dict[str, Dimension]] = {"lr": choice(1e-5, 3e-5, 1e-4, 3e-4), "keep": choice(0.005, 0.01, 0.05)}
    phases: ClassVar[Literal[1, 2]] = 2
    rewinds: ClassVar[bool] = True
    example: ClassVar[Mapping[str, Scalar]] = {"keep": 0.1}

    keep: float = 0.01

    def check(self, shape: Shape | None) -> None:
        require_number("keep", self.keep, 1e-6, 1)

    @property
    def mask(self) -> Mask:
        return Mask(score="change", density=self.keep)

    def stored(self, shape: Shape) -> float:
        return self.mask.num_kept(shape.encoder)
