"""What a method is: a formula over one trial's parameters, and the declaration of those parameters.

A method file never imports torch. Its formula is written with operators and tensor methods, so that with parameters of
shape [K, ...] it is K trials in one batched product; a leading K is added by the engine, never by the method.

Legend: K slots, T tokens of a slot's row, b examples of all rows, D width, F width of the feed-forward layer, R bottleneck,
l virtual tokens, L layers.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

from search_spaces.language import Dimension, Recipe, Scalar
from trainables.methods.initializers import ZEROS, Init

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike
    from torch import Tensor

# Where a method can act, in the order in which a token meets the places.
Site = Literal[
    "embeddings",  # word embeddings of the virtual tokens, before positions, token types and the LayerNorm
    "attention.query",  # a linear map's output
    "attention.key",  # a linear map's output
    "attention.value",  # a linear map's output
    "attention.prefix",  # keys and values before a layer's own: `prefix` instead of `transform`
    "attention.context",  # what the heads return, before the dense layer
    "attention.dense",  # a linear map's output, before dropout
    "attention.output",  # the same after dropout, before the residual is added
    "ffn.intermediate",  # a linear map's output [K, T, F], before the activation
    "ffn.hidden",  # after the activation [K, T, F]
    "ffn.dense",  # a linear map's output, before dropout
    "ffn.output",  # the same after dropout, before the residual is added
]
# What the classification head reads: the model's own head on its first token (BERT's pooled, RoBERTa's through a dense layer),
# or one linear map of the first token's raw state, or of the mean over tokens.
HeadReads = Literal["own", "first", "mean"]
MethodFamily = Literal["full", "freezing", "adapter", "low rank", "scaling and bias", "prompt", "mask", "combination"]


@dataclass(frozen=True, kw_only=True)
class Shape:
    """The numbers of a backbone that decide parameter counts.

    `total` is the pretrained base model with its pooler (the denominator of percentages); `pooler` whether the
    classification model uses it; `embeddings` counts the embedding block, its LayerNorm included; `positions` is the most
    tokens that an example may have.
    """

    layers: int
    width: int
    ffn: int
    heads: int
    total: int
    pooler: bool
    embeddings: int
    positions: int

    @property
    def layer_norms(self) -> int:
        """Gains and biases of all LayerNorms: two per layer and the embeddings' one."""
        return (2 * self.layers + 1) * 2 * self.width

    @property
    def layer(self) -> int:
        """All parameters of one encoder layer."""
        d, f = self.width, self.ffn
        return 4 * (d * d + d) + 2 * d * f + f + d + 4 * d

    @property
    def pooling(self) -> int:
        """Parameters of the pooler that the classification model uses."""
        return self.width * (self.width + 1) if self.pooler else 0

    @property
    def encoder(self) -> int:
        """All parameters that the classification model uses of the backbone."""
        return self.embeddings + self.layers * self.layer + self.pooling

    @property
    def maps(self) -> int:
        """Weights of the linear maps of all encoder layers."""
        d, f = self.width, self.ffn
        return self.layers * (4 * d * d + 2 * d * f)

    @property
    def matrices(self) -> int:
        """Those of `encoder` that are neither biases nor LayerNorms."""
        d = self.width
        return self.embeddings - 2 * d + self.maps + (d * d if self.pooler else 0)

    def head(self, outputs: int, reads: HeadReads = "own") -> int:
        """Parameters of the classification head: two linear maps in RoBERTa's own, else one."""
        d = self.width
        return d * outputs + outputs + (d * d + d if reads == "own" and not self.pooler else 0)

    def ends(self, site: Site) -> tuple[int, int]:
        """Widths of what comes to a linear map and of what it gives; at other sites both are that of the hidden states."""
        d, f = self.width, self.ffn
        widths: dict[Site, tuple[int, int]] = {
            "ffn.intermediate": (d, f),
            "ffn.hidden": (f, f),
            "ffn.dense": (f, d),
        }
        return widths.get(site, (d, d))


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """One declared parameter: its shape without K, and its start.

    A shape of one dimension reaches the formula as [K, 1, n] and is not decayed nor pruned, one of more as [K, ...] and is,
    unless `decayed` says otherwise. `lr`: a peak learning rate of its own instead of the trial's. `trained`: False for
    running statistics, which `SiteContext.keep` sets and nobody counts.
    """

    shape: tuple[int, ...]
    start: Init = ZEROS
    decayed: bool = True
    lr: float | None = None
    trained: bool = True


# How the entries of a mask are ranked; the formulas are in `trainables/training/pruning.py`.
MaskScore = Literal["random", "magnitude", "snip", "grasp", "fisher", "batch_fisher", "change"]


@dataclass(frozen=True, kw_only=True)
class Mask:
    """A mask over those entries of a trial's row that compete for it: the floor(`keep` * number) best ones go on moving.

    `each`: so many of every parameter instead of all together. `examples`: how many a gradient score sees, 0 for the whole
    training part. `zeroed`: what is kept out is zero from then on, else it stays at its start.
    """

    score: MaskScore
    keep: float
    each: bool = False
    examples: int = 0
    zeroed: bool = False

    def kept(self, number: int) -> int:
        """floor(keep * number), without the binary rounding that makes 0.29 * 100 a little less than 29."""
        return math.floor(round(self.keep * number, 6))


class Values(dict[str, "Tensor"]):
    """The parameters of one site, and those that all sites share, reached as attributes: `p.down` is [K, D, R]."""

    def __getattr__(self, name: str) -> Tensor:
        return self[name]


class SiteContext(Protocol):
    """What a formula may ask of the place where it acts."""

    layer: int
    site: Site

    @property
    def training(self) -> bool:
        """Whether dropout acts, and running statistics move."""

    @property
    def x(self) -> Tensor:
        """What came to the linear map [K, T, D]; at an output, the residual: the sub-layer's own input."""

    @property
    def weight(self) -> Tensor:
        """The frozen linear map's weight [in, out]."""

    @property
    def query(self) -> Tensor:
        """At attention.context: this layer's queries, heads joined [K, T, D]."""

    def frozen(self, site: Site) -> tuple[Tensor, Tensor]:
        """Weight [in, out] and bias [out] of a linear map of this layer."""

    def start(self, name: str) -> Tensor:
        """What a parameter declared FROZEN started from; the same for every trial, without K."""

    def norm(self, h: Tensor) -> Tensor:
        """The frozen LayerNorm that follows this output, of h [K, T, D]."""

    def mean_of_examples(self, z: Tensor) -> Tensor:
        """Mean over each example's own tokens: z [K, T, n] -> [b, 1, n]."""

    def to_tokens(self, m: Tensor) -> Tensor:
        """An example's value for each of its tokens: m [b, 1, n] -> [K, T, n]."""

    def to_examples(self, v: Tensor) -> Tensor:
        """A trial's value for each of its examples: v [K, l, n] -> [b, l, n]."""

    def real(self) -> Tensor:
        """[K, T, 1]: 1 for tokens, 0 for what fills a row up."""

    def keep(self, name: str, value: Tensor) -> None:
        """In training: the new value of a parameter that gradients do not move (running statistics), after this step."""


@dataclass(frozen=True, kw_only=True)
class Method(ABC):
    """Base of all methods; the fields of a subclass are its settings, checked by `check`."""

    title: ClassVar[str]
    paper: ClassVar[str]
    family: ClassVar[MethodFamily]
    # Every site at which it may act; `parameters` says where it does.
    sites: ClassVar[tuple[Site, ...]] = ()
    # What is worth searching beside the batch size, and where: the grid of its learning rate, and of its own settings.
    search: ClassVar[Mapping[str, Dimension]] = {}
    # Which parameters of all LayerNorms are trained beside its own.
    norms: ClassVar[Literal["none", "biases", "all"]] = "none"
    # False: trains backbone weights, hence needs an engine with a backbone of its own; see `methods/weights.py`.
    shares_backbone: ClassVar[bool] = True
    # Parts into which the planned epochs are cut. With two, the mask is drawn where the second one begins, which is then a
    # training of its own: schedule, moments, best epoch and patience start again. With one it is drawn before the first step.
    phases: ClassVar[Literal[1, 2]] = 1
    # Whether `penalty` adds to its loss.
    penalised: ClassVar[bool] = False
    # Parameters of its sites that take the method out of a layer when they are zero there, LayerNorms and head left as trained;
    # none where zeros do not do that. See `trainables/training/layer_ablation.py`.
    removed_at_zero: ClassVar[tuple[str, ...]] = ()
    # Tensors of memory, as large as the parameters, that `after_step` keeps beside Adam's moments.
    memories: ClassVar[int] = 0

    def check(self, shape: Shape | None) -> None:  # noqa: B027 - a method without demands has nothing to check
        """Raise ValueError for settings that no backbone, or not this one, allows. `shape` None: not known yet."""

    def check_recipe(self, recipe: Recipe, shape: Shape | None) -> None:
        """Raise ValueError for a recipe that leaves a phase without an epoch, or virtual tokens without positions."""
        if recipe.epochs < self.phases:
            raise ValueError(f"epochs = {recipe.epochs}: must be at least {self.phases}, one for each of its phases")
        if shape and self.virtual_tokens and self.virtual_tokens + recipe.max_length > shape.positions:
            raise ValueError(
                f"{self.virtual_tokens} virtual tokens and max_length = {recipe.max_length}: "
                f"together at most {shape.positions}, the positions of the model"
            )

    @property
    def mask(self) -> Mask | None:
        """The mask that holds from the first step, or the second phase, to the last."""
        return None

    def competes(self, name: str, parameter: Parameter) -> bool:
        """Whether the entries of this parameter compete for a place in the mask; all others are kept."""
        return len(parameter.shape) > 1 and parameter.decayed and not name.startswith("head.")

    def parameters(self, shape: Shape, layer: int, site: Site) -> dict[str, Parameter]:
        """What a site of a layer holds; nothing where the method does not act. The embeddings are layer 0."""
        return {}

    def shared(self, shape: Shape) -> dict[str, Parameter]:
        """What all sites have in common."""
        return {}

    def constants(self, shape: Shape) -> dict[str, Parameter]:
        """Tensors that every trial of these settings has in common and none trains; [...], without K."""
        return {}

    def from_frozen(self, weight: Tensor) -> dict[str, Tensor]:
        """Starts of the parameters declared FROZEN, from the frozen weight [in, out] of their site."""
        return {}

    @property
    def virtual_tokens(self) -> int:
        """Tokens that the embeddings site adds to each example, after its first."""
        return 0

    @property
    def prefix_tokens(self) -> int:
        """Keys and values that `prefix` adds in each layer."""
        return 0

    @property
    def prefix_dropout(self) -> float:
        """Share of the prefix's numbers that are zero in training, drawn for each example."""
        return 0.0

    @property
    def head_reads(self) -> HeadReads:
        return "own"

    @property
    def reads_all_tokens(self) -> bool:
        """Whether anything after the last layer's keys and values looks at more than each example's first token.

        If nothing in a pass does, that layer goes on with first tokens alone, T of which are E.
        """
        return self.head_reads == "mean"

    def transform(self, h: Tensor, p: Values, at: SiteContext) -> Tensor:
        """The formula at a site: h [K, T, D] -> [K, T, D]."""
        return h

    def prompt(self, p: Values) -> Tensor:
        """The word embeddings of the virtual tokens [K, l, D]."""
        raise NotImplementedError

    def prefix(self, p: Values, at: SiteContext) -> tuple[Tensor, Tensor]:
        """Keys and values [K, l, D], or [b, l, D] where they differ from example to example."""
        raise NotImplementedError

    def draws(self, shape: Shape, random: np.random.Generator) -> Mapping[str, ArrayLike]:
        """Vectors drawn anew for each training step; the formula finds them among its parameters, as [K, 1, n]."""
        return {}

    def rest(self, shape: Shape) -> Mapping[str, ArrayLike]:
        """The same for evaluation."""
        return {}

    def penalty(self, everything: Mapping[str, Values]) -> Tensor:
        """[K], added to the training loss but not reported; `everything` holds the parameters by "<layer>.<site>"."""
        raise NotImplementedError

    def after_step(  # noqa: B027 - most methods leave the values to the optimiser
        self, everything: Mapping[str, StepValues], step: Tensor, total: Tensor
    ) -> None:
        """Change values in place after the optimiser's step number `step` [K] of `total` [K], counted from 1.

        `everything` holds the parameters by "<layer>.<site>.<name>".
        """

    @abstractmethod
    def counts(self, shape: Shape) -> tuple[int, int]:
        """(weights, module): trained matrices alone, and with biases, in closed form; LayerNorms and head excluded."""

    def stored(self, shape: Shape) -> float:
        """What has to be kept of `module` after training, in numbers of 32 bits."""
        return self.counts(shape)[1]

    def settings(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in fields(self)}


@dataclass(frozen=True, kw_only=True)
class StepValues:
    """One parameter after a step, all views of the trial's own: values and grads [K, ...], memory [n, K, ...]."""

    value: Tensor
    grad: Tensor
    memory: Tensor


def require_int(name: str, value: Scalar, low: int, high: int, what: str = "") -> None:
    """Raise ValueError unless `value` is a whole number in [low, high]; `what` explains the upper bound."""
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        bound = f" ({what})" if what else ""
        raise ValueError(f"{name} = {value!r}: must be a whole number between {low} and {high}{bound}")


def require_number(name: str, value: Scalar, low: float, high: float) -> None:
    """Raise ValueError unless `value` is a number in [low, high]."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise ValueError(f"{name} = {value!r}: must be a number between {low} and {high}")


def require_one_of(name: str, value: Scalar, allowed: tuple[str, ...]) -> None:
    """Raise ValueError unless `value` is one of `allowed`."""
    if value not in allowed:
        raise ValueError(f"{name} = {value!r}: must be one of {', '.join(allowed)}")


def require_share(name: str, value: Scalar) -> None:
    """Raise ValueError unless `value` is a share in [0, 1)."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1:
        raise ValueError(f"{name} = {value!r}: must be a share in [0, 1)")
