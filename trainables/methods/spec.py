"""The types with which a method declares its sites, parameters and mask, and the shape of the backbone they depend on.

Knows no formula and imports no torch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from trainables.methods.initializers import ZEROS, Init

# The sites where a method can act, in the order of the forward pass.
Site = Literal[
    "embeddings",  # word embeddings of the virtual tokens, before positions, token types and the LayerNorm
    "attention.query",  # a linear map's output
    "attention.key",  # a linear map's output
    "attention.value",  # a linear map's output
    "attention.prefix",  # keys and values before a layer's own: `prefix` instead of `transform`
    "attention.context",  # output of the attention heads, before the dense layer
    "attention.dense",  # a linear map's output, before dropout
    "attention.output",  # the same after dropout, before the residual is added
    "ffn.intermediate",  # a linear map's output [K, T, F], before the activation
    "ffn.hidden",  # after the activation [K, T, F]
    "ffn.dense",  # a linear map's output, before dropout
    "ffn.output",  # the same after dropout, before the residual is added
]

# The sites at a linear map's output, and those at a sub-layer's.
LINEAR_MAPS: tuple[Site, ...] = (
    "attention.query",
    "attention.key",
    "attention.value",
    "attention.dense",
    "ffn.intermediate",
    "ffn.dense",
)
SUBLAYER_OUTPUTS: tuple[Site, ...] = ("attention.output", "ffn.output")

# What the classification head reads: the model's own head on its first token (BERT's pooled, RoBERTa's through a dense layer),
# or one linear map of the first token's raw state, or of the mean over tokens.
HeadReads = Literal["own", "first", "mean"]

MethodFamily = Literal["full", "freezing", "adapter", "low rank", "scaling and bias", "prompt", "mask", "combination"]


@dataclass(frozen=True, kw_only=True)
class BackboneTensor:
    """One parameter of the pretrained model, by the name that transformers gives it. `layer` is None outside the layers."""

    name: str
    shape: tuple[int, ...]
    part: Literal["embeddings", "layer", "pooler"]
    layer: int | None = None

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def is_matrix(self) -> bool:
        return len(self.shape) > 1


@dataclass(frozen=True, kw_only=True)
class Shape:
    """The sizes and tensors of a backbone, as `ModelFamily.shape` reads them from a config."""

    layers: int
    width: int
    ffn: int
    heads: int
    # The most tokens that an example may have.
    positions: int
    # Whether the classification head reads the pretrained model's pooler; if not, it has a dense layer of its own.
    pooler: bool
    # All parameters that the classification model uses of the pretrained one, in the order of `named_parameters`.
    tensors: tuple[BackboneTensor, ...]
    # Parameters of the pretrained base model, an unused pooler included: the denominator of percentages.
    total: int

    @property
    def layer_norms(self) -> int:
        """Gains and biases of all LayerNorms: two per layer and the embeddings' one."""
        return (2 * self.layers + 1) * 2 * self.width

    @property
    def encoder(self) -> int:
        """All parameters that the classification model uses of the backbone."""
        return sum(t.size for t in self.tensors)

    @property
    def matrices(self) -> int:
        """Those of `encoder` that are neither biases nor LayerNorms."""
        return sum(t.size for t in self.tensors if t.is_matrix)

    def head(self, outputs: int, reads: HeadReads = "own") -> int:
        """Parameters of the classification head: one linear map, and before it the dense layer of a family without a pooler."""
        d = self.width
        return d * outputs + outputs + (d * d + d if reads == "own" and not self.pooler else 0)

    def ends(self, site: Site) -> tuple[int, int]:
        """(Input width, output width) of a linear map; at other sites both are the width of the hidden states."""
        d, f = self.width, self.ffn
        widths: dict[Site, tuple[int, int]] = {
            "ffn.intermediate": (d, f),
            "ffn.hidden": (f, f),
            "ffn.dense": (f, d),
        }
        return widths.get(site, (d, d))


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """One declared parameter: its shape without K, and its initializer.

    shape: a vector [n] reaches the formula as [K, 1, n]; it is neither decayed nor pruned. A matrix [...] reaches it as
        [K, ...]; it is decayed and pruned.
    decayed: False exempts a matrix from weight decay and pruning.
    lr: a peak learning rate of its own; None for the trial's.
    trained: False for running statistics, which `SiteContext.update_buffer` sets and no count includes.
    prunable: False exempts the parameter from pruning in methods that ask for this flag.
    """

    shape: tuple[int, ...]
    init: Init = ZEROS
    decayed: bool = True
    lr: float | None = None
    trained: bool = True
    prunable: bool = True


# How the entries of a mask are ranked; the formulas are in `trainables/training/pruning.py`.
MaskScore = Literal["random", "magnitude", "snip", "grasp", "fisher", "batch_fisher", "change"]


@dataclass(frozen=True, kw_only=True)
class Mask:
    """A pruning mask over the prunable entries of a trial. Those with the highest scores stay trainable.

    score: how entries are ranked.
    density: fraction of entries that stay trainable, 0 to 1.
    each: rank the entries of every parameter apart, instead of all entries together.
    examples: number of training examples from which a gradient score is computed; 0 for all of the training split.
    zeroed: pruned entries are zero from then on; otherwise they stay at their initial values.
    """

    score: MaskScore
    density: float
    each: bool = False
    examples: int = 0
    zeroed: bool = False

    def num_kept(self, number: int) -> int:
        """How many of `number` entries stay trainable: floor(density * number).

        Rounded first, since 0.29 * 100 is a little less than 29 in floating point.
        """
        return math.floor(round(self.density * number, 6))
