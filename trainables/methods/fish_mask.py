"""FISH mask: only the parameters with the largest Fisher information are updated (Sung et al. 2021, NeurIPS).

    F_i = sum over examples of (d log p(y|x) / d theta_i)^2, true labels, one example at a time;    g <- g * M, M the top of F

The mask is drawn once, before the first step, in evaluation mode with the new head at its initial values, which makes it noisy.
`keep` is a share of the backbone's parameters, the head is trained beside them: the authors count the head inside, so that on
RoBERTa 95 % of 0.5 % are its head. 256 examples by default, a quarter of the authors' default: each needs a backward pass of its
own, since the squared gradient of a batch is another quantity. Traps: decoupled weight decay would move what is
masked, so it is masked too; Adam's moments stay dense in memory. `stored` counts the values that changed, without their indices.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from search_spaces.language import Dimension, Scalar, choice
from trainables.methods.backbone_weights import WeightMethod
from trainables.methods.spec import Mask, MethodFamily, Shape
from trainables.methods.validate import require_int, require_number


@dataclass(frozen=True, kw_only=True)
class FishMask(WeightMethod):
    """`keep`: share of the backbone's parameters that is trained; `examples`: number of examples in the Fisher information."""

    title: ClassVar[str] = "FISH mask"
    paper: ClassVar[str] = "Sung et al. 2021"
    family: ClassVar[MethodFamily] = "mask"
    search: ClassVar[dict[str, Dimension]] = {"lr": choice(1e-5, 2e-5, 5e-5, 1e-4), "keep": choice(0.001, 0.005, 0.02)}
    example: ClassVar[Mapping[str, Scalar]] = {"keep": 0.1, "examples": 20}

    keep: float = 0.005
    examples: int = 256

    def check(self, shape: Shape | None) -> None:
        require_number("keep", self.keep, 1e-6, 1)
        require_int("examples", self.examples, 1, 1_000_000)

    @property
    def mask(self) -> Mask:
        return Mask(score="fisher", density=self.keep, examples=self.examples)
