"""SparseAdapter: Houlsby adapters pruned once, before the first step, by a fixed mask (He et al. 2022, EMNLP Findings).

    W~ = M * W,    M in {0, 1},    for W_down and W_up of every adapter; biases are never masked

The ceil(sparsity * number of weights) weights with the lowest scores z are removed; of equal scores, the first by position. In
the released code, the flag named sparsity is the fraction kept, here it is the fraction removed. All matrices are ranked
together, except with "er", which ranks each matrix separately:
    random      z ~ U(0, 1)
    magnitude   z = |W|
    er          z ~ U(0, 1), the same fraction in each matrix, as all have one size (Erdos-Renyi, in the paper but not its code)
    snip        z = |W * g|,    g = dL/dW summed over 320 training examples
    grasp       z = W * (H g),  H the Hessian of L; the largest z are kept
Traps: gradients are computed in evaluation mode, in fp32, on the training split only, with the head at its initial values.
Removed weights stay zero: neither Adam nor weight decay changes them. Memory use is that of
dense adapters.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from trainables.methods.adapter import Adapter
from trainables.methods.spec import Mask, Shape
from trainables.methods.validate import require_one_of, require_share

SCORES = ("random", "magnitude", "er", "snip", "grasp")


@dataclass(frozen=True, kw_only=True)
class SparseAdapter(Adapter):
    """`sparsity`: fraction of the weights that is removed; `score`: the score by which weights are ranked."""

    title: ClassVar[str] = "SparseAdapter"
    paper: ClassVar[str] = "He et al. 2022"

    sparsity: float = 0.4
    score: Literal["random", "magnitude", "er", "snip", "grasp"] = "snip"

    def check(self, shape: Shape | None) -> None:
        super().check(shape)
        require_share("sparsity", self.sparsity)
        require_one_of("score", self.score, SCORES)

    @property
    def mask(self) -> Mask:
        """The mask, which sets removed weights to zero. Gradient scores use 320 examples, as in the released code."""
        each = self.score == "er"
        score = "random" if self.score == "er" else self.score
        return Mask(score=score, density=1 - self.sparsity, each=each, examples=320, zeroed=True)
