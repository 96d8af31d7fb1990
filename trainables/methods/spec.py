"""The types with which a method declares its sites, parameters and mask, and the shape of the backbone that these depend on.

This module contains no formulas and does not import torch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from trainables.methods.initializers import ZEROS, Init

# The sites where a method can act, in the order of the forward pass, each with the tensor that a method changes there.
# Legend: K trials, T tokens of a packed row, F width of the feed-forward layer.
Site = Literal[
    "embeddings",  # embeddings of inserted virtual tokens, before positions, token types and LayerNorm are applied
    "attention.query",  # a linear map's output
    "attention.key",  # a linear map's output
    "attention.value",  # a linear map's output
    "attention.prefix",  # adds keys and values before those of the tokens, by `prefix` instead of `transform`
    "attention.context",  # output of the attention heads, before the dense layer
    "attention.dense",  # a linear map's output, before dropout
    "attention.output",  # the output of "attention.dense" after dropout, before the residual is added
    "ffn.gate",  # a linear map's output [K, T, F], before the activation; only in models with a gated feed-forward part
    "ffn.intermediate",  # a linear map's output [K, T, F], before the activation; in gated models not activated
    "ffn.hidden",  # output of the activation [K, T, F], in gated models times that of "ffn.intermediate"
    "ffn.dense",  # a linear map's output, before dropout
    "ffn.output",  # the output of "ffn.dense" after dropout, before the residual is added
]

# The sites at the output of a linear map, and those at the output of a sub-layer (attention or feed-forward).
LINEAR_MAPS: tuple[Site, ...] = (
    "attention.query",
    "attention.key",
    "attention.value",
    "attention.dense",
    "ffn.gate",
    "ffn.intermediate",
    "ffn.dense",
)
SUBLAYER_OUTPUTS: tuple[Site, ...] = ("attention.output", "ffn.output")

# The architecture and input of the classification head:
# own    the head of the pretrained model's family on the token that it reads, an encoder's first and a decoder's last: BERT's
#        pooler and a linear map, RoBERTa's new dense layer and a linear map, a decoder's linear map
# first  one linear map of that token's last hidden state
# mean   one linear map of the mean of the last hidden states over the example's tokens
HeadReads = Literal["own", "first", "mean"]

MethodFamily = Literal[
    "full",
    "freezing",
    "adapter",
    "low rank",
    "orthogonal",
    "scaling and bias",
    "prompt",
    "mask",
    "combination",
    "peft",
]


@dataclass(frozen=True, kw_only=True)
class BackboneTensor:
    """One parameter of the pretrained model. `name` is its name in transformers; `layer` is None outside the encoder layers."""

    name: str
    shape: tuple[int, ...]
    part: Literal["embeddings", "layer", "norm", "pooler"]
    layer: int | None = None

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def is_matrix(self) -> bool:
        return len(self.shape) > 1


@dataclass(frozen=True, kw_only=True)
class Shape:
    """The sizes and parameter tensors of a backbone. `ModelFamily.shape` derives them from a model's config."""

    layers: int
    width: int
    ffn: int
    heads: int
    # The width of all query heads together, and of all key heads, which are fewer where several queries share one.
    query_width: int
    key_width: int
    # Whether the feed-forward part has the map "ffn.gate".
    gated: bool
    # Whether normalisations have biases.
    norm_biases: bool
    # Normalisations of a layer: two, or four where the sub-layers' outputs are normalised as well as their inputs.
    norms_per_layer: int = 2
    # Whether a normalisation follows the sum of a sub-layer's output and the residual: in encoders at once, in most decoders as
    # the first step of the next sub-layer. Not where only the sub-layers' outputs are normalised.
    sums_normalized: bool = True
    # The largest number of tokens that an example may have.
    positions: int
    # Whether the input of the classification head is the output of the pretrained pooler.
    pooler: bool
    # Whether the head reads the last token of an example, as in decoders, instead of the first.
    reads_last: bool
    # Whether the family's own head has a dense layer that each trial trains, and whether its linear map has biases.
    dense_head: bool
    head_biases: bool
    # Whether this dense layer has biases, and whether a norm without biases follows it.
    dense_biases: bool = True
    head_norm: bool = False
    # Whether the family's own head reads the mean over the example's tokens instead of one of them.
    reads_mean: bool = False
    # Whether the query and key maps are also applied to embeddings of distances between tokens, as in DeBERTa.
    maps_distances: bool = False
    # All pretrained parameters that the classification model uses, in the order of torch's `named_parameters`.
    tensors: tuple[BackboneTensor, ...]
    # Number of parameters of the pretrained base model, including an unused pooler: the denominator of percentages.
    total: int

    @property
    def maps(self) -> tuple[Site, ...]:
        """The linear maps of a layer, by the site of their output."""
        return tuple(site for site in LINEAR_MAPS if self.gated or site != "ffn.gate")

    @property
    def norms(self) -> int:
        """Number of all normalisations as wide as the hidden states: of the layers, and one before or after all of them."""
        return self.norms_per_layer * self.layers + 1

    @property
    def norm_gains(self) -> int:
        """Number of gains of all normalisations."""
        return self.norms * self.width

    @property
    def encoder(self) -> int:
        """Number of backbone parameters that the classification model uses."""
        return sum(t.size for t in self.tensors)

    @property
    def matrices(self) -> int:
        """Number of the parameters in `encoder` that belong to matrices, i.e. neither to biases nor to LayerNorms."""
        return sum(t.size for t in self.tensors if t.is_matrix)

    def head(self, outputs: int, reads: HeadReads = "own") -> int:
        """Number of parameters of the classification head with `outputs` outputs.

        The head is one linear map; with `reads` = "own" and a family that trains one, a dense layer precedes it.
        """
        d, dense = self.width, reads == "own" and self.dense_head
        before = d * d + (self.dense_biases + self.head_norm) * d
        return (d + self.head_biases) * outputs + (before if dense else 0)

    def ends(self, site: Site) -> tuple[int, int]:
        """Returns (input width, output width) of the linear map at a site. At other sites both are the width of the tensor."""
        d, f = self.width, self.ffn
        widths: dict[Site, tuple[int, int]] = {
            "attention.query": (d, self.query_width),
            "attention.key": (d, self.key_width),
            "attention.value": (d, self.key_width),
            "attention.context": (self.query_width, self.query_width),
            "attention.dense": (self.query_width, d),
            "ffn.gate": (d, f),
            "ffn.intermediate": (d, f),
            "ffn.hidden": (f, f),
            "ffn.dense": (f, d),
        }
        return widths.get(site, (d, d))


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """The declaration of one parameter.

    shape: shape in one trial, without the leading number of trials K. A formula receives a vector [n] as [K, 1, n], and a
        matrix [...] as [K, ...]. Only matrices are subject to weight decay and pruning.
    init: the initializer.
    decayed: False exempts a matrix from weight decay and pruning.
    lr: the parameter's own peak learning rate; None for the trial's learning rate.
    lr_factor: what this learning rate is multiplied with.
    trained: False for running statistics, which are set by `SiteContext.update_buffer`, and for random tensors that stay as they
        were drawn. They are not counted as trained.
    prunable: False exempts the parameter from pruning in methods whose `is_prunable` checks this flag.
    """

    shape: tuple[int, ...]
    init: Init = ZEROS
    decayed: bool = True
    lr: float | None = None
    lr_factor: float = 1.0
    trained: bool = True
    prunable: bool = True


# The score by which a mask ranks entries; the formulas are in `trainables/training/pruning.py`.
MaskScore = Literal["random", "magnitude", "snip", "grasp", "fisher", "batch_fisher", "change"]


@dataclass(frozen=True, kw_only=True)
class Mask:
    """The definition of a pruning mask. Of a trial's prunable entries, those with the highest scores stay trainable.

    score: the score by which entries are ranked.
    density: fraction of entries that stay trainable, 0 to 1.
    each: True ranks the entries of every parameter separately; False ranks all entries together.
    examples: number of training examples from which a gradient score is computed; 0 for the whole training split.
    zeroed: True sets pruned entries to zero for the rest of training; False freezes them at their initial values.
    """

    score: MaskScore
    density: float
    each: bool = False
    examples: int = 0
    zeroed: bool = False

    def num_kept(self, number: int) -> int:
        """Returns how many of `number` entries stay trainable: floor(density * number).

        The product is rounded to 6 decimals first, because 0.29 * 100 is slightly less than 29 in floating point.
        """
        return math.floor(round(self.density * number, 6))


@dataclass(frozen=True, kw_only=True)
class Stored:
    """What has to be kept to use a trained module again on the same pretrained model.

    values: number of 32-bit numbers. position_bits: bits that say where these belong, or of learned masks without values.
    """

    values: int
    position_bits: int = 0

    @property
    def num_bytes(self) -> int:
        return 4 * self.values + math.ceil(self.position_bits / 8)


def stored_subset(number: int, kept: int) -> Stored:
    """Returns the smallest way to keep `kept` of `number` entries, the others being known.

    All of them without positions; the kept ones and one bit for every entry; or the kept ones and a 32-bit index for each.
    """
    ways = (Stored(values=number), *(Stored(values=kept, position_bits=bits) for bits in (number, 32 * kept)))
    return min(ways, key=lambda way: (way.num_bytes, way.values))
