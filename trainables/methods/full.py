"""Full fine-tuning: every parameter of the backbone and a new head are updated.

    y = head(backbone(x; theta)), theta starting at the pretrained values.

The baseline of every comparison. Trap: learning rates of adapters (5e-4, often 1e-4) make it diverge; such runs are
results and stay in the record.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from search_spaces.language import Dimension, choice
from trainables.methods.backbone_weights import WeightMethod
from trainables.methods.spec import MethodFamily


@dataclass(frozen=True, kw_only=True)
class Full(WeightMethod):
    title: ClassVar[str] = "Fine-tuning"
    paper: ClassVar[str] = "Devlin et al. 2019"
    family: ClassVar[MethodFamily] = "full"
    search: ClassVar[Mapping[str, Dimension]] = {"lr": choice(1e-5, 2e-5, 5e-5, 1e-4)}
