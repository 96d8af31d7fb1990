"""LayerNorm-only tuning, a baseline of Houlsby et al. (2019, ICML): only all LayerNorms and the head are trained.

    y = g * (x - mean) / deviation + b,    g, b [D];    two LayerNorms per layer and one after the embeddings

The RMS norms of decoders have g alone, and no mean is subtracted; there are two per layer and one at the end. g and b start at
the pretrained values and are not decayed. The method needs learning rates around 1e-3.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from search_spaces.language import Dimension, choice
from trainables.methods.base import Method
from trainables.methods.spec import MethodFamily


@dataclass(frozen=True, kw_only=True)
class LayerNormOnly(Method):
    title: ClassVar[str] = "LayerNorm only"
    paper: ClassVar[str] = "Houlsby et al. 2019"
    family: ClassVar[MethodFamily] = "freezing"
    norms: ClassVar[Literal["none", "biases", "all"]] = "all"
    search: ClassVar[Mapping[str, Dimension]] = {"lr": choice(1e-3, 3e-3, 1e-2, 3e-2)}
