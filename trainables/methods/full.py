"""Full fine-tuning: all parameters of the backbone and a new head are trained.

    y = head(backbone(x; theta)),    theta starts at the pretrained values

It is the baseline of every comparison. Trap: it diverges at learning rates that suit adapters (5e-4, often 1e-4 already).
Diverged trials count as results and are not discarded.
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
    search: ClassVar[Mapping[str, Dimension]] = {"lr": choice(1e-5, 3e-5, 1e-4, 3e-4)}
