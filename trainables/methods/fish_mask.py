"""FISH mask: only the parameters with the largest Fisher information are trained (Sung et al. 2021, NeurIPS).

    F_i = sum over examples of (d log p(y|x) / d theta_i)^2 with true labels;    g <- g * M, M = 1 for the largest F_i, else 0

The mask is computed once, before the first step, in evaluation mode and with the new head at its random initial values, which
makes it noisy. `keep` is a fraction of the backbone's parameters, and the head is trained in addition. The authors count the
head within that fraction, so that on RoBERTa 95 % of a fraction of 0.5 % are the head. The default are 256 examples, a quarter
of the authors' default. Each example needs its own backward pass, since the squared gradient of a batch is a different
quantity.
Traps: decoupled weight decay would change masked parameters, so it is masked, too. Adam's moments still need memory for all
parameters. `stored` counts the values that were trained, without their indices.
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
    """`keep`: fraction of the backbone's parameters to train; `examples`: number of examples for the Fisher information."""

    title: ClassVar[str] = "FISH mask"
    paper: ClassVar[str] = "Sung et al. 2021"
    family: ClassVar[MethodFamily] = "mask"
    search: ClassVar[dict[str, Dimension]] = {"lr": choice(1e-5, 3e-5, 1e-4, 3e-4), "keep": choice(0.001, 0.005, 0.02)}
    example: ClassVar[Mapping[str, Scalar]] = {"keep": 0.1, "examples": 20}

    keep: float = 0.005
    examples: int = 256

    def check(self, shape: Shape | None) -> None:
        require_number("keep", self.keep, 1e-6, 1)
        require_int("examples", self.examples, 1, 1_000_000)

    @property
    def mask(self) -> Mask:
        return Mask(score="fisher", density=self.keep, examples=self.examples)
