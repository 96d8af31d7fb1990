"""Methods that train the encoder's own weights, or what these are computed from. Each trial needs a backbone of its own.

Legend: K slots, L layers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from trainables.methods.contract import Method, Parameter, Shape, Values
from trainables.methods.starts import FROZEN

if TYPE_CHECKING:
    from torch import Tensor

LAYER, POOLER = "encoder.layer.", "pooler."


@dataclass(frozen=True, kw_only=True)
class WeightMethod(Method):
    """What is trained is told tensor by tensor of the encoder, by the names of transformers."""

    shares_backbone: ClassVar[bool] = False
    # Which entries of the trained tensors may move: all of them, those of a mask fixed before the first step, or those of a
    # fresh mask for every step.
    moves: ClassVar[str] = "all"

    def tensors(self, name: str, size: tuple[int, ...], shape: Shape) -> dict[str, Parameter]:
        """What is trained for the tensor `name`: nothing; {"": ...} the tensor itself; or parts that `effective` combines."""
        return {"": Parameter(shape=size, start=FROZEN)}

    def effective(self, weight: Tensor, p: Values) -> Tensor:
        """The weight that is used, from the pretrained one and its trained parts [1, ...]; of the weight's own shape."""
        raise NotImplementedError


def layer_of(name: str) -> int | None:
    """The layer that a tensor of the encoder belongs to; None for embeddings and pooler."""
    return int(name.removeprefix(LAYER).split(".")[0]) if name.startswith(LAYER) else None
