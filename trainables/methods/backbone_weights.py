"""Base class of the methods that train the encoder's own weights, or parameters from which these weights are computed.

Every trial of such a method needs its own copy of the backbone and is trained alone.
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
    """Base class of methods that declare parameters for each tensor of the encoder.

    Their names are "backbone." and the tensor's name in transformers. If several parameters (parts) belong to one tensor, the
    name of the part follows, and `effective` computes the tensor from the parts.
    """

    shares_backbone: ClassVar[bool] = False
    # Names of the parts for which `effective` receives noise in each training step: uniform in (0, 1), in the part's shape.
    noisy: ClassVar[tuple[str, ...]] = ()
    # Whether all parameters, including the head, are reset to their initial values before the second phase. If not, only pruned
    # entries are reset.
    rewinds: ClassVar[bool] = False

    @property
    def gradient_share(self) -> float:
        """Fraction of gradient entries used by a step. They are drawn anew for each step and divided by this fraction."""
        return 1.0

    def tensors(self, tensor: BackboneTensor, shape: Shape) -> dict[str, Parameter]:
        """Returns the parameters for one tensor: {} to freeze it, {"": ...} to train it, or named parts for `effective`."""
        return {"": Parameter(shape=tensor.shape, init=FROZEN)}

    def declared_parameters(self, shape: Shape) -> Iterator[tuple[str, Parameter]]:
        """Yields the backbone's parameters, "backbone.<tensor>" or "backbone.<tensor>.<part>", then those of the base class."""
        for tensor in shape.tensors:
            for part, parameter in self.tensors(tensor, shape).items():
                yield f"{BACKBONE}.{tensor.name}.{part}".rstrip("."), parameter
        yield from super().declared_parameters(shape)

    def effective(self, weight: Tensor, p: Values, noise: Values | None) -> Tensor:
        """Returns the weight that a forward pass uses, computed from the pretrained `weight` and its parts `p`, each [1, ...].

        `noise`: random numbers for the parts in `noisy`; None in evaluation.
        """
        raise NotImplementedError

    def settled(self, p: Values) -> dict[str, Tensor]:
        """Returns new values, by name, for the parts of a computed weight after the first phase, before the mask is computed.

        Parts that are not returned keep their values.
        """
        return {}

    def is_prunable(self, name: str, parameter: Parameter) -> bool:
        return name.startswith(BACKBONE)
