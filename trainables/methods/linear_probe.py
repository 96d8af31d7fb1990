"""Linear probe, or feature-based transfer: only the head is trained, on features of the frozen encoder.

    logits = head(features(x)),    with features and head by the setting `reads`:
    own      the head of the model family. BERT: pooled first token, linear map; RoBERTa: first token, dense, tanh, linear map
    first    the last hidden state of the first token (a decoder: of the last), and a linear map; in a decoder the same as own
    mean     the mean of the last hidden states over the example's tokens, and a linear map

Dropout is applied in training as for all other methods, so the features are computed anew in every step; computing them only
once would mean training without dropout.
Traps: BERT's pooler was trained for another task, so "own" and "first" give different results. RoBERTa's first token contains
little information before fine-tuning, and with RoBERTa's own head the method is no linear probe (592,130 parameters at two
classes). The default "mean" is the fairest choice.
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
    """`reads`: the features and the head, see above."""

    title: ClassVar[str] = "Linear probe"
    paper: ClassVar[str] = "feature-based transfer"
    family: ClassVar[MethodFamily] = "freezing"
    search: ClassVar[Mapping[str, Dimension]] = {
        "lr": choice(1e-3, 3e-3, 1e-2, 3e-2),
        "reads": choice("own", "first", "mean"),
    }
    example_lr: ClassVar[float] = 0.03

    reads: HeadReads = "mean"

    def check(self, shape: Shape | None) -> None:
        require_one_of("reads", self.reads, ("own", "first", "mean"))

    @property
    def head_reads(self) -> HeadReads:
        return self.reads
