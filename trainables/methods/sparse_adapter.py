"""SparseAdapter: Houlsby adapters pruned once, before the first step, by a fixed mask (He et al. 2022, EMNLP Findings).

    W~ = M * W,    M in {0, 1},    applied to W_down and W_up of every adapter; biases are never masked

A score z per weight decides; the ceil(sparsity * number of weights) lowest are removed, ties by position. `sparsity` is the share
removed (in the released code the flag of that name is the share kept). Scores over all matrices together, except "er":
    random      z ~ U(0, 1)
    magnitude   z = |W|
    er          random, the same share in each matrix of equal shape (Erdos-Renyi; the paper names it, the code lacks it)
    snip        z = |W * g|,    g = dL/dW summed over 320 training examples
    grasp       z = W * (H g),  H the Hessian; the largest are kept
Traps: gradients are taken in evaluation mode, in fp32, on the training part only, with the head at its start; the mask
acts in the forward pass, so neither Adam nor weight decay can revive a weight; memory stays that of the dense adapter.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

from trainables.methods.adapter import Adapter
from trainables.methods.contract import Shape, require_one_of, require_share

SCORES = ("random", "magnitude", "er", "snip", "grasp")


@dataclass(frozen=True, kw_only=True)
class SparseAdapter(Adapter):
    """`sparsity`: share of the weights removed; `score`: how they are ranked."""

    title: ClassVar[str] = "SparseAdapter"
    paper: ClassVar[str] = "He et al. 2022"
    prunes: ClassVar[bool] = True

    sparsity: float = 0.4
    score: Literal["random", "magnitude", "er", "snip", "grasp"] = "snip"

    def check(self, shape: Shape | None) -> None:
        super().check(shape)
        require_share("sparsity", self.sparsity)
        require_one_of("score", self.score, SCORES)

    def counts(self, shape: Shape) -> tuple[int, int]:
        dense, with_biases = super().counts(shape)
        removed = self.removed(dense, matrices=4 * shape.layers)
        return dense - removed, with_biases - removed

    def removed(self, weights: int, matrices: int) -> int:
        """How many of `weights` are masked; all `matrices` have one size, so "er" rounds up in each."""
        if self.score == "er":
            return matrices * exact_share(self.sparsity, weights // matrices)
        return exact_share(self.sparsity, weights)


def exact_share(share: float, number: int) -> int:
    """ceil(share * number), without the binary rounding that makes 0.07 * 100 a little more than 7."""
    return math.ceil(round(share * number, 6))
