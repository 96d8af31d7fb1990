"""Linear probe, or feature-based transfer: only the head is trained, on features of the frozen encoder.

    logits = head(features(x)),    features, by `reads`:
    own      the model's own head: BERT's pooled first token and one linear map, RoBERTa's first token, dense, tanh, linear
    first    the first token's last hidden state, one linear map
    mean     the mean of the last hidden states over the example's tokens, one linear map

Dropout acts in training as for every other method: features are computed in every step. Computing them once would need none.
Traps: BERT's pooler was trained for another task, so "own" and "first" differ; RoBERTa's first token carries little information
before it is tuned, and its own head is no linear probe (592,130 parameters at two classes). "mean" is the fairest, and the
default.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from search_spaces.language import Dimension, choice
from trainables.methods.base import Method
from trainables.methods.spec import HeadReads, MethodFamily, Shape
from trainables.methods.validate import require_one_of


@dataclass(frozen=True, kw_only=True)
class LinearProbe(Method):
    """`reads`: the features that the head reads."""

    title: ClassVar[str] = "Linear probe"
    paper: ClassVar[str] = "feature-based transfer"
    family: ClassVar[MethodFamily] = "freezing"
    search: ClassVar[Mapping[str, Dimension]] = {
        "lr": choice(5e-4, 1e-3, 3e-3, 1e-2),
        "reads": choice("own", "first", "mean"),
    }
    example_lr: ClassVar[float] = 0.03

    reads: HeadReads = "mean"

    def check(self, shape: Shape | None) -> None:
        require_one_of("reads", self.reads, ("own", "first", "mean"))

    @property
    def head_reads(self) -> HeadReads:
        return self.reads
