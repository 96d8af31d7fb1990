"""LT-SFT: a lottery ticket of sparse fine-tuning (Ansell et al. 2022, ACL).

    train everything;    M = the top of |theta_1 - theta_0| over the whole backbone;    back to theta_0, train with g <- g * M

The planned epochs are halved: the first phase is a full fine-tuning of its own length, the second begins with the same initial
values, head included as in the authors' code, with fresh moments, schedule and warm-up. The result of the first phase is not
sparse, so no epoch of it can be the trial's best. One round; the authors' optional L1 term |theta - theta_0| is not implemented.
Traps: all parameters move in the first phase, `counts` says so; `stored` counts the values that the second one changes, without
their indices.
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
    """`keep`: share of the backbone's parameters that the second phase trains."""

    title: ClassVar[str] = "LT-SFT"
    paper: ClassVar[str] = "Ansell et al. 2022"
    family: ClassVar[MethodFamily] = "mask"
    search: ClassVar[dict[str, Dimension]] = {"lr": choice(1e-5, 2e-5, 5e-5, 1e-4), "keep": choice(0.005, 0.01, 0.05)}
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
