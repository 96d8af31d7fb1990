"""Threshold mask: the pretrained weights are frozen, and a learned mask selects which of them are used (Zhao et al. 2020).

    W' = W * 1[m > tau],    m: real scores of W's shape,    dL/dm = W * dL/dW' (straight-through estimator)

It masks the matrices of query, key, value, attention output, intermediate and output in the layers from `lowest` on, and that
of BERT's pooler. Biases, LayerNorms and embeddings are frozen and unmasked; the head is trained. tau = 0.01, and m ~ U(-0.02,
u), with u chosen such that the fraction `masked` is masked at the start.
Traps: a large fraction makes the model useless before the first step. Scores are not decayed, because weight decay would pull
them below tau. Learning rates are far above those of full fine-tuning. Only one bit per score has to be stored, but training
needs memory for all scores.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from search_spaces.language import Dimension, choice
from trainables.methods.backbone_weights import WeightMethod
from trainables.methods.context import Values
from trainables.methods.initializers import uniform
from trainables.methods.spec import BackboneTensor, MethodFamily, Parameter, Shape
from trainables.methods.validate import require_int, require_number

if TYPE_CHECKING:
    from torch import Tensor

TAU, LOW = 0.01, -0.02


@dataclass(frozen=True, kw_only=True)
class ThresholdMask(WeightMethod):
    """`masked`: fraction of the weights that is masked at the start; `lowest`: lowest layer, from 0, that has masks."""

    title: ClassVar[str] = "Threshold mask"
    paper: ClassVar[str] = "Zhao et al. 2020"
    family: ClassVar[MethodFamily] = "mask"
    search: ClassVar[dict[str, Dimension]] = {"lr": choice(1e-4, 1e-3, 3e-3, 3e-2), "masked": choice(0.02, 0.05)}

    masked: float = 0.05
    lowest: int = 0

    def check(self, shape: Shape | None) -> None:
        require_number("masked", self.masked, 0.001, 0.9)
        require_int("lowest", self.lowest, 0, shape.layers - 1 if shape else 1023, "the backbone's last layer")

    def tensors(self, tensor: BackboneTensor, shape: Shape) -> dict[str, Parameter]:
        in_masked_layers = tensor.layer is not None and tensor.layer >= self.lowest
        if not tensor.is_matrix or not (in_masked_layers or tensor.part == "pooler"):
            return {}
        high = (TAU - LOW) / self.masked + LOW
        return {"score": Parameter(shape=tensor.shape, init=uniform(LOW, high), decayed=False)}

    def effective(self, weight: Tensor, p: Values, noise: Values | None) -> Tensor:
        used = (p.score > TAU).to(weight.dtype)
        return weight * (p.score - p.score.detach() + used)

    def kept_parameters(self, shape: Shape) -> Iterator[tuple[str, Parameter]]:
        """No scores, only the mask that they make: see `mask_bits`."""
        return iter(())

    def mask_bits(self, shape: Shape) -> int:
        return self.counts(shape)[1]
