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
    """Base of methods whose parameters are declared for each tensor of the encoder, by its name in transformers.

    Names of these parameters begin with "backbone.".
    """

    shares_backbone: ClassVar[bool] = False
    # Names of the parts that get noise in each training step: uniform in (0, 1), of the part's shape.
    noisy: ClassVar[tuple[str, ...]] = ()
    # Whether all parameters, the head too, are reset to their initial values before the second phase; else only pruned entries.
    rewinds: ClassVar[bool] = False

    @property
    def gradient_share(self) -> float:
        """Fraction of gradient entries that a step uses. They are drawn anew for each step, and divided by this fraction."""
        return 1.0

    def tensors(self, tensor: BackboneTensor, shape: Shape) -> dict[str, Parameter]:
        """The parameters for a tensor: {} if it is frozen, {"": ...} for itself, or parts that `effective` combines."""
        return {"": Parameter(shape=tensor.shape, init=FROZEN)}

    def declared_parameters(self, shape: Shape) -> Iterator[tuple[str, Parameter]]:
        """Those of the backbone's tensors first: "backbone.<tensor>", or "backbone.<tensor>.<part>"."""
        for tensor in shape.tensors:
            for part, parameter in self.tensors(tensor, shape).items():
                yield f"{BACKBONE}.{tensor.name}.{part}".rstrip("."), parameter
        yield from super().declared_parameters(shape)

    def effective(self, weight: Tensor, p: Values, noise: Values | None) -> Tensor:
        """The weight of a forward pass, from the pretrained weight and its parts [1, ...]. `noise` is None in evaluation."""
        raise NotImplementedError

    def settled(self, p: Values) -> dict[str, Tensor]:
        """New values for parts of a computed weight at the end of the first phase, before the mask is drawn."""
        return {}

    def is_prunable(self, name: str, parameter: Parameter) -> bool:
        return name.startswith(BACKBONE)
