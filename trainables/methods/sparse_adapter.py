"""SparseAdapter: Houlsby adapters pruned once, before the first step, by a fixed mask (He et al. 2022, EMNLP Findings).

    W~ = M * W,    M in {0, 1},    applied to W_down and W_up of every adapter; biases are never masked

A score z per weight decides; the ceil(sparsity * number of weights) lowest are removed, ties by position. `sparsity` is the share
removed (in the released code the flag of that name is the share kept). Scores over all matrices together, except "er":
    random      z ~ U(0, 1)
    magnitude   z = |W|
    er          random, the same share in each matrix of equal shape (Erdos-Renyi; the paper names it, the code lacks it)
    snip        z = |W * g|,    g = dL/dW summed over 320 training examples
    grasp       z = W * (H g),  H the Hessian; the largest are kept
Traps: gradients are taken in evaluation mode, in fp32, on the training part only, with the head at its initial values; the
mask acts in the forward pass, so neither Adam nor weight decay can revive a weight; memory stays that of the dense adapter.
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
    """`sparsity`: share of the weights removed; `score`: how they are ranked."""

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
        """The mask sets the removed weights to zero. Gradient scores use 320 examples, as in the released code."""
        each = self.score == "er"
        score = "random" if self.score == "er" else self.score
        return Mask(score=score, density=1 - self.sparsity, each=each, examples=320, zeroed=True)
