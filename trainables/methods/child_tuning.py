"""Child-Tuning: only the gradients of a subset of the parameters, the child network, are used (Xu et al. 2021, EMNLP).

    F (task-free):      g <- g * B / keep in each step, B ~ Bernoulli(keep) drawn anew for every entry
    D (task-driven):    g <- g * M, M fixed: 1 for the fraction `keep` of parameters with the largest Fisher information, else 0

Both masks are applied before Adam's moments are updated; that of F after clipping, as in the released code. As released, D's
Fisher information is the sum, over all batches of the training split, of the squared batch gradient, with each tensor's
gradient clipped first and with dropout. Only the encoder layers' parameters are ranked; embeddings, pooler and head are always
trained.
Traps: decoupled weight decay would change the parameters that D masks, so it is masked, too. Adam normalises most of F's factor
1 / keep away. F trains every parameter: it regularises, but does not save storage.
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
    """The task-free variant. `keep`: fraction of the gradient entries that a step uses."""

    title: ClassVar[str] = "Child-Tuning F"
    paper: ClassVar[str] = "Xu et al. 2021"
    family: ClassVar[MethodFamily] = "mask"
    search: ClassVar[dict[str, Dimension]] = {"lr": choice(1e-5, 3e-5, 1e-4, 3e-4), "keep": choice(0.2, 0.3, 0.4)}

    keep: float = 0.3

    def check(self, shape: Shape | None) -> None:
        require_number("keep", self.keep, 1e-3, 1)

    @property
    def gradient_share(self) -> float:
        return self.keep


@dataclass(frozen=True, kw_only=True)
class ChildTuningD(Full):
    """The task-driven variant. `keep`: fraction of the encoder layers' parameters that is trained."""

    title: ClassVar[str] = "Child-Tuning D"
    paper: ClassVar[str] = "Xu et al. 2021"
    family: ClassVar[MethodFamily] = "mask"
    search: ClassVar[dict[str, Dimension]] = {"lr": choice(1e-5, 3e-5, 1e-4, 3e-4), "keep": choice(0.1, 0.2, 0.3)}

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
