"""`Method`, the base class of all methods: the declaration of a method's parameters, and the formula in which they are used.

A method file never imports torch. Its formulas use only operators and tensor methods; the engine stacks the parameters of K
trials along a leading dimension, so that the same formula computes K trials in one batched product. A method declares its
shapes without K.

Legend: K trials trained together, T tokens of a trial's packed row, b examples of all rows, D width of the hidden states, l
virtual tokens.
"""

from __future__ import annotations

import math
from abc import ABC
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args

from search_spaces.language import Dimension, Recipe, Scalar
from trainables.methods.context import SiteContext, StepValues, Values
from trainables.methods.initializers import FROZEN
from trainables.methods.spec import HeadReads, Mask, MethodFamily, Parameter, Shape, Site, Stored, stored_subset

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike
    from torch import Tensor


# First part of the names of the parameters that all sites of a trial share.
SHARED = "shared"


@dataclass(frozen=True, kw_only=True)
class Method(ABC):
    """Base class of all methods. The dataclass fields of a subclass are the method's settings; `check` validates them."""

    title: ClassVar[str]
    paper: ClassVar[str]
    family: ClassVar[MethodFamily]
    # All sites where the method can act. `parameters` is empty at those where it does not act with the current settings.
    sites: ClassVar[tuple[Site, ...]] = ()
    # Recommended search ranges of the learning rate and of the method's settings.
    search: ClassVar[Mapping[str, Dimension]] = {}
    # Which parameters of the backbone's LayerNorms are trained in addition to the method's own parameters.
    norms: ClassVar[Literal["none", "biases", "all"]] = "none"
    # For the tests of all methods: settings that fit a tiny encoder (2 layers, width 32, 4 heads), and a learning rate with which
    # that encoder learns an artificial task in six epochs.
    example: ClassVar[Mapping[str, Scalar]] = {}
    example_lr: ClassVar[float] = 3e-3
    # False for methods that train or mask backbone weights: each of their trials needs its own copy of the backbone and is
    # trained alone; see `methods/backbone_weights.py`.
    shares_backbone: ClassVar[bool] = True
    # Number of phases into which the planned epochs are divided. With one phase, a mask is computed before the first step. With
    # two, it is computed at the start of the second phase, which has its own schedule, Adam moments, best epoch and patience.
    phases: ClassVar[Literal[1, 2]] = 1
    # Whether a step clips the gradient of all parameters before that of pruned entries is set to zero, instead of after it.
    clips_before_mask: ClassVar[bool] = False
    # Whether the training loss includes `penalty`.
    penalised: ClassVar[bool] = False
    # Names of the parameters that have to be set to zero in a layer to remove the method from that layer; empty if setting
    # parameters to zero does not remove the method.
    # See `trainables/training/layer_ablation.py`.
    removed_at_zero: ClassVar[tuple[str, ...]] = ()
    # Number of tensors, each as large as the parameters, that `after_step` keeps between steps in addition to Adam's moments.
    memories: ClassVar[int] = 0

    def check(self, shape: Shape | None) -> None:  # noqa: B027 - a method without restrictions has nothing to check
        """Raise ValueError if a setting is out of range, or does not fit a backbone of this `shape` (None: not known yet)."""

    def check_recipe(self, recipe: Recipe, shape: Shape | None) -> None:
        """Raise ValueError if the training recipe does not fit the method.

        It needs one epoch per phase, weights that are not quantised if it trains them, and the virtual tokens and `max_length`
        together must not exceed the model's positions.
        """
        if recipe.epochs < self.phases:
            raise ValueError(
                f"epochs = {recipe.epochs}: must be at least {self.phases}, one for each phase of the method"
            )
        if recipe.nf4 and not self.shares_backbone:
            raise ValueError(
                "trains weights of the backbone, which precision 'nf4' keeps frozen in 4 bits; leave the row out, or set "
                "precision to 'bf16' or 'fp32'"
            )
        if shape and self.virtual_tokens and self.virtual_tokens + recipe.max_length > shape.positions:
            raise ValueError(
                f"{self.virtual_tokens} virtual tokens and max_length = {recipe.max_length}: "
                f"together at most {shape.positions}, the positions of the model"
            )

    def target_step(self, total: int) -> int:
        """Returns the number of the step, from 1, after which the method has its final size; 0 if it has from the start.

        `total`: planned steps of the last phase, in which steps are counted. Scores of epochs that end before do not count,
        because they are those of a larger model. At most `total`.
        """
        return 0

    @property
    def mask(self) -> Mask | None:
        """The pruning mask, applied from the first step (with two phases: from the second phase) to the end. None: no pruning."""
        return None

    def is_prunable(self, name: str, parameter: Parameter) -> bool:
        """Whether the mask ranks, and may prune, the entries of this parameter. All other parameters are never pruned."""
        return len(parameter.shape) > 1 and parameter.decayed and not name.startswith("head.")

    def parameters(self, shape: Shape, layer: int, site: Site) -> dict[str, Parameter]:
        """The method's parameters at `site` of `layer`, by name. Empty if it does not act there. The embeddings are layer 0."""
        return {}

    def shared(self, shape: Shape) -> dict[str, Parameter]:
        """The parameters, by name, of which a trial has one each for all layers and sites."""
        return {}

    def constants(self, shape: Shape) -> dict[str, Parameter]:
        """Frozen tensors, by name, that are the same for all trials with these settings. They reach formulas without K."""
        return {}

    def from_frozen(self, weight: Tensor) -> dict[str, Tensor]:
        """Initial values, by name, of a site's parameters declared FROZEN, computed from its linear map's weight [in, out]."""
        return {}

    @property
    def virtual_tokens(self) -> int:
        """Number of virtual tokens that the method inserts into each example, at the site "embeddings".

        They follow the first token in an encoder and come before it in a decoder.
        """
        return 0

    @property
    def prefix_tokens(self) -> int:
        """Number of keys, and of values, that `prefix` adds in each layer."""
        return 0

    @property
    def prefix_dropout(self) -> float:
        """Dropout rate of the prefix's keys and values; the dropped entries are drawn anew for each example."""
        return 0.0

    @property
    def head_reads(self) -> HeadReads:
        """The input of the classification head, see `HeadReads`."""
        return "own"

    @property
    def reads_all_tokens(self) -> bool:
        """Whether the method needs the last layer's hidden states of all tokens, not only of the token that heads read.

        This holds for a head that averages over tokens, and for a formula that does so after the attention keys and values.
        If it holds for no method in a forward pass, the last layer computes everything except keys and values for the first
        tokens only; T is then the number of examples in the row.
        """
        return self.head_reads == "mean"

    def transform(self, h: Tensor, p: Values, at: SiteContext) -> Tensor:
        """Apply the method to h [K, T, D], the frozen model's tensor at the site `at`. Returns the same shape.

        At the sites "ffn.intermediate" and "ffn.hidden", the last dimension is that of the feed-forward layer.
        """
        return h

    def prompt(self, p: Values) -> Tensor:
        """Returns the embeddings [K, l, D] that the virtual tokens have in place of word embeddings."""
        raise NotImplementedError

    def prefix(self, p: Values, at: SiteContext) -> tuple[Tensor, Tensor]:
        """Returns the additional keys and values of a layer, each [K, l, D], or [b, l, D] if they differ between examples."""
        raise NotImplementedError

    def sample_step_inputs(self, shape: Shape, random: np.random.Generator) -> Mapping[str, ArrayLike]:
        """Returns random vectors [n], by name, for one training step. Formulas find them among the parameters, as [K, 1, n]."""
        return {}

    def eval_inputs(self, shape: Shape) -> Mapping[str, ArrayLike]:
        """Returns the constant vectors [n], by name, that evaluation uses in place of those of `sample_step_inputs`."""
        return {}

    def penalty(self, everything: Mapping[str, Values]) -> Tensor:
        """Returns one term [K] per trial, which is added to the training loss, but not to the reported loss.

        `everything` holds the parameters by "<layer>.<site>".
        """
        raise NotImplementedError

    def after_step(  # noqa: B027 - most methods do not change values after the step
        self, everything: Mapping[str, StepValues], step: Tensor, total: Tensor
    ) -> None:
        """Change parameter values in place after an optimiser step. Called only if `memories` is above zero.

        `step` [K]: number of the step, from 1; `total` [K]: planned steps. Both are counted within the phase.
        `everything` holds the parameters by "<layer>.<site>.<name>".
        """

    def declared_parameters(self, shape: Shape) -> Iterator[tuple[str, Parameter]]:
        """Yields (name, parameter) for all parameters of a trial except the head's: LayerNorms, then sites, then shared ones.

        Names are "norm.<number>.weight", "norm.<number>.bias", "<layer>.<site>.<parameter>" and "shared.<parameter>".
        """
        kinds = {"none": (), "biases": ("bias",), "all": ("weight", "bias")}[self.norms]
        for number in range(shape.norms):
            own = (kind for kind in kinds if kind == "weight" or shape.norm_biases)
            yield from ((f"norm.{number}.{kind}", Parameter(shape=(shape.width,), init=FROZEN)) for kind in own)
        missing = () if shape.gated else ("ffn.gate",)
        sites = [site for site in self.sites if site not in ("embeddings", *missing)]
        places = [(layer, site) for layer in range(shape.layers) for site in sites]
        for layer, site in [*places, *((0, site) for site in self.sites if site == "embeddings")]:
            yield from ((f"{layer}.{site}.{name}", p) for name, p in self.parameters(shape, layer, site).items())
        yield from ((f"{SHARED}.{name}", p) for name, p in self.shared(shape).items())

    def counts(self, shape: Shape) -> tuple[int, int]:
        """Returns (weights, module): the numbers of trained entries in matrices, and in matrices and vectors together.

        LayerNorms and the head are excluded. If a mask prunes before the first step, only those prunable
        entries that it keeps are counted, as weights.
        """
        weights, module, pruned = 0, 0, []
        for name, parameter in self.declared_parameters(shape):
            size = math.prod(parameter.shape) if parameter.trained and not name.startswith("norm.") else 0
            if self.mask and self.phases == 1 and self.is_prunable(name, parameter):
                pruned.append(size)
            else:
                module += size
                weights += size if len(parameter.shape) > 1 else 0
        num_kept = 0
        if self.mask:
            num_kept = sum(map(self.mask.num_kept, pruned if self.mask.each else [sum(pruned)]))
        return weights + num_kept, module + num_kept

    def kept_parameters(self, shape: Shape) -> Iterator[tuple[str, Parameter]]:
        """Yields (name, parameter) of what the finished module consists of, in place of `declared_parameters`.

        The names matter to `is_prunable` alone. Methods override it if training needs more than the finished module does.
        """
        return self.declared_parameters(shape)

    def mask_bits(self, shape: Shape) -> int:
        """Number of bits of learned masks that the finished module needs in addition to `kept_parameters`."""
        return 0

    def stored(self, shape: Shape, trained: Mapping[str, Tensor] | None = None) -> Stored:
        """Returns what has to be kept to use the trained module again. LayerNorms and the head are excluded.

        Of prunable parameters, those are the entries that the mask keeps, with their positions. `trained`: a trial's parameters
        by name; None if only the settings are known, which suffices for methods whose size does not depend on training.
        """
        kept = {n: p for n, p in self.kept_parameters(shape) if not n.startswith("norm.")}
        pruned = [math.prod(p.shape) for n, p in kept.items() if self.mask and self.is_prunable(n, p)]
        subset = Stored(values=0)
        if self.mask:
            num_kept = sum(map(self.mask.num_kept, pruned if self.mask.each else [sum(pruned)]))
            subset = stored_subset(sum(pruned), num_kept)
        others = sum(math.prod(p.shape) for p in kept.values()) - sum(pruned)
        return Stored(values=others + subset.values, position_bits=subset.position_bits + self.mask_bits(shape))

    def settings(self) -> dict[str, Any]:
        """The values of the method's settings, by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


def method_class(name: str, found: Any) -> type[Method]:
    """Return `found` if it can be the method `name`: a subclass of Method whose settings have defaults. Raises TypeError."""
    if not (isinstance(found, type) and issubclass(found, Method)):
        raise TypeError(f"the method {name!r} must be a subclass of trainables.methods.base.Method")
    missing = [each for each in ("title", "paper", "family") if not isinstance(getattr(found, each, None), str)]
    if missing or found.family not in get_args(MethodFamily):
        wrong = missing or [f"family {found.family!r}, which must be one of {', '.join(get_args(MethodFamily))}"]
        raise TypeError(f"the method {name!r} lacks {', '.join(wrong)}")
    found()  # raises TypeError for a setting without a default
    return found
