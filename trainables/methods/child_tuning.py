"""Child-Tuning: only a child network's gradients are used (Xu et al. 2021, EMNLP).

    F (free of the task):    each step g <- g * B / keep, B ~ Bernoulli(keep) anew for every entry
    D (driven by the task):  g <- g * M, M fixed: the top `keep` share of the encoder layers' Fisher information

Both before Adam's moments; F after clipping, as in the released code. D's information is, as released, the sum over all
batches of the training part of the squared batch gradient, each tensor clipped first, with dropout on; only encoder layers
are ranked, embeddings, pooler and head are always trained. Traps: decoupled weight decay would move what D masks, so it is
masked too; Adam normalises F's 1 / keep away to a large extent; F moves every parameter, it regularises and saves no storage.
"""

from dataclasses import dataclass
from typing import ClassVar

from search_spaces.language import Dimension, choice
from trainables.methods.backbone_weights import BACKBONE
from trainables.methods.full import Full
from trainables.methods.initializers import FROZEN
from trainables.methods.spec import BackboneTensor, Mask, MethodFamily, Parameter, Shape
from trainables.methods.validate import require_number


@dataclass(frozen=True, kw_only=True)
class ChildTuningF(Full):
    """`keep`: share of the gradients that a step uses."""

    title: ClassVar[str] = "Child-Tuning F"
    paper: ClassVar[str] = "Xu et al. 2021"
    family: ClassVar[MethodFamily] = "mask"
    search: ClassVar[dict[str, Dimension]] = {"lr": choice(1e-5, 2e-5, 5e-5, 1e-4), "keep": choice(0.2, 0.3, 0.4)}

    keep: float = 0.3

    def check(self, shape: Shape | None) -> None:
        require_number("keep", self.keep, 1e-3, 1)

    @property
    def gradient_share(self) -> float:
        return self.keep


@dataclass(frozen=True, kw_only=True)
class ChildTuningD(Full):
    """`keep`: share of the encoder layers' parameters that is trained."""

    title: ClassVar[str] = "Child-Tuning D"
    paper: ClassVar[str] = "Xu et al. 2021"
    family: ClassVar[MethodFamily] = "mask"
    search: ClassVar[dict[str, Dimension]] = {"lr": choice(1e-5, 2e-5, 5e-5, 1e-4), "keep": choice(0.1, 0.2, 0.3)}

    keep: float = 0.3

    def check(self, shape: Shape | None) -> None:
        require_number("keep", self.keep, 1e-6, 1)

    @property
    def mask(self) -> Mask:
        return Mask(score="batch_fisher", density=self.keep)

    def is_prunable(self, name: str, parameter: Parameter) -> bool:
        return name.startswith(BACKBONE) and parameter.prunable

    def tensors(self, tensor: BackboneTensor, shape: Shape) -> dict[str, Parameter]:
        return {"": Parameter(shape=tensor.shape, init=FROZEN, prunable=tensor.layer is not None)}
