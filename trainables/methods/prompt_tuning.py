"""Prompt tuning (Lester et al. 2021, EMNLP): trained vectors are inserted among the word embeddings.

    X' = [x_0; P; x_1 ... x_n],    P [l, D]

The vectors are inserted after the first token, so that the head still uses the hidden state of [CLS] or <s> (peft inserts them
before it, and its head uses the first vector). In a decoder they come before all tokens. The model treats them as words: they
have positions 1 ... l and the first token's type, pass through the embeddings' LayerNorm and dropout, and shift the positions of
the text by l. `start` is their initialisation: "vocabulary" uses the embeddings of l different words, drawn with equal
probability; "normal" uses N(0, 1) as in peft, which has more than ten times the norm of a word embedding.
Traps: prompt tuning is weak on encoders of base size and needs many epochs and learning rates up to 0.1. The maximum length of
the text decreases by l.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from search_spaces.language import Dimension, Scalar, choice
from trainables.methods.base import Method
from trainables.methods.context import Values
from trainables.methods.initializers import WORDS, normal
from trainables.methods.spec import MethodFamily, Parameter, Shape, Site
from trainables.methods.validate import require_int, require_one_of

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class PromptTuning(Method):
    """`length`: number l of vectors; `start`: initialisation of the vectors."""

    title: ClassVar[str] = "Prompt tuning"
    paper: ClassVar[str] = "Lester et al. 2021"
    family: ClassVar[MethodFamily] = "prompt"
    sites: ClassVar[tuple[Site, ...]] = ("embeddings",)
    search: ClassVar[Mapping[str, Dimension]] = {"lr": choice(1e-3, 1e-2, 3e-2, 1e-1), "length": choice(10, 20, 50)}
    example: ClassVar[Mapping[str, Scalar]] = {"length": 5}
    example_lr: ClassVar[float] = 0.05

    length: int = 20
    start: Literal["vocabulary", "normal"] = "vocabulary"

    def check(self, shape: Shape | None) -> None:
        require_int(
            "length", self.length, 1, shape.positions - 1 if shape else 511, "one less than the model's positions"
        )
        require_one_of("start", self.start, ("vocabulary", "normal"))

    @property
    def virtual_tokens(self) -> int:
        return self.length

    def parameters(self, shape: Shape, layer: int, site: Site) -> dict[str, Parameter]:
        init = WORDS if self.start == "vocabulary" else normal(1)
        return {"prompt": Parameter(shape=(self.length, shape.width), init=init, decayed=False)}

    def prompt(self, p: Values) -> Tensor:
        return p.prompt
