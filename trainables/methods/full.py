"""Full fine-tuning: every parameter of the backbone and a new head are updated.

    y = head(backbone(x; theta)), theta starting at the pretrained values.

The baseline of every comparison. Trap: learning rates of adapters (5e-4, often 1e-4) make it diverge; such runs are
results and stay in the record.
"""

from dataclasses import dataclass
from typing import ClassVar

from trainables.methods.contract import Family, Shape
from trainables.methods.weights import WeightMethod


@dataclass(frozen=True, kw_only=True)
class Full(WeightMethod):
    title: ClassVar[str] = "Fine-tuning"
    paper: ClassVar[str] = "Devlin et al. 2019"
    family: ClassVar[Family] = "full"

    def counts(self, shape: Shape) -> tuple[int, int]:
        """Everything but the head: BERT's pooler is used and trained, RoBERTa's is not part of the model."""
        return shape.matrices, shape.encoder
