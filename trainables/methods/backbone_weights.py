"""Methods that train the encoder's own weights, or what these are computed from. Each trial needs a backbone of its own.

Legend: K trials, L layers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from trainables.methods.base import Method
from trainables.methods.context import Values
from trainables.methods.initializers import FROZEN
from trainables.methods.spec import BackboneTensor, Parameter, Shape

if TYPE_CHECKING:
    from torch import Tensor

BACKBONE = "backbone"


@dataclass(frozen=True, kw_only=True)
class WeightMethod(Method):
    """What is trained is told tensor by tensor of the encoder, by the names of transformers.

    In names of parameters they stand behind "backbone.".
    """

    shares_backbone: ClassVar[bool] = False
    # Parts for which each training step draws noise, uniform in (0, 1) and of the part's shape.
    noisy: ClassVar[tuple[str, ...]] = ()
    # Whether everything, the head too, is put back to its start before the second phase; else only what the mask keeps out.
    rewinds: ClassVar[bool] = False

    @property
    def gradient_share(self) -> float:
        """Share of all gradients, drawn anew for each step, that this step uses, divided by it."""
        return 1.0

    def tensors(self, tensor: BackboneTensor, shape: Shape) -> dict[str, Parameter]:
        """The parameters trained for a tensor: none; {"": ...} the tensor itself; or parts that `effective` combines."""
        return {"": Parameter(shape=tensor.shape, init=FROZEN)}

    def declared_parameters(self, shape: Shape) -> Iterator[tuple[str, Parameter]]:
        """Those of the backbone's tensors first: "backbone.<tensor>", or "backbone.<tensor>.<part>"."""
        for tensor in shape.tensors:
            for part, parameter in self.tensors(tensor, shape).items():
                yield f"{BACKBONE}.{tensor.name}.{part}".rstrip("."), parameter
        yield from super().declared_parameters(shape)

    def effective(self, weight: Tensor, p: Values, noise: Values | None) -> Tensor:
        """The weight that is used, from the pretrained one and its trained parts [1, ...]; `noise` None: in evaluation."""
        raise NotImplementedError

    def settled(self, p: Values) -> dict[str, Tensor]:
        """What parts of a computed weight become when the first phase is over, before the mask is drawn."""
        return {}

    def is_prunable(self, name: str, parameter: Parameter) -> bool:
        return name.startswith(BACKBONE)
