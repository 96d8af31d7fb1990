"""What a method is: a formula over one trial's parameters, and the declaration of those parameters.

A method file never imports torch. Its formula is written with operators and tensor methods, so that with parameters of
shape [K, ...] it is K trials in one batched product; a leading K is added by the engine, never by the method.

Legend: K trials, T tokens of a trial's row, b examples of all rows, D width, l virtual tokens.
"""

from __future__ import annotations

import math
from abc import ABC
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from search_spaces.language import Dimension, Recipe, Scalar
from trainables.methods.context import SiteContext, StepValues, Values
from trainables.methods.initializers import FROZEN
from trainables.methods.spec import HeadReads, Mask, MethodFamily, Parameter, Shape, Site

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike
    from torch import Tensor


# Prefix of the names of parameters that all sites share.
SHARED = "shared"


@dataclass(frozen=True, kw_only=True)
class Method(ABC):
    """Base of all methods; the fields of a subclass are its settings, checked by `check`."""

    title: ClassVar[str]
    paper: ClassVar[str]
    family: ClassVar[MethodFamily]
    # Every site at which it may act; `parameters` says where it does.
    sites: ClassVar[tuple[Site, ...]] = ()
    # Recommended search ranges: its learning rate and its own settings.
    search: ClassVar[Mapping[str, Dimension]] = {}
    # Which parameters of all LayerNorms are trained beside its own.
    norms: ClassVar[Literal["none", "biases", "all"]] = "none"
    # Settings for a tiny encoder (2 layers, width 32, 4 heads), and a learning rate with which it learns a made-up task there in
    # six epochs: what the tests of all methods use.
    example: ClassVar[Mapping[str, Scalar]] = {}
    example_lr: ClassVar[float] = 3e-3
    # False: trains backbone weights, hence needs an engine with a backbone of its own; see `methods/backbone_weights.py`.
    shares_backbone: ClassVar[bool] = True
    # Parts into which the planned epochs are cut. With two, the mask is drawn where the second one begins, and that phase has a
    # schedule, moments, a best epoch and patience of its own. With one, the mask is drawn before the first step.
    phases: ClassVar[Literal[1, 2]] = 1
    # Whether `penalty` adds to its loss.
    penalised: ClassVar[bool] = False
    # Parameters that remove the method from a layer when they are zero there; empty if zeros do not do that.
    # See `trainables/training/layer_ablation.py`.
    removed_at_zero: ClassVar[tuple[str, ...]] = ()
    # Number of tensors, as large as the parameters, that `after_step` keeps between steps beside Adam's moments.
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
        """The pruning mask, in force from the first step, or from the second phase, to the end; None without pruning."""
        return None

    def is_prunable(self, name: str, parameter: Parameter) -> bool:
        """Whether the method's mask ranks the entries of this parameter. All other parameters stay trainable."""
        return len(parameter.shape) > 1 and parameter.decayed and not name.startswith("head.")

    def parameters(self, shape: Shape, layer: int, site: Site) -> dict[str, Parameter]:
        """The parameters at a site of a layer; empty where the method does not act. The embeddings are layer 0."""
        return {}

    def shared(self, shape: Shape) -> dict[str, Parameter]:
        """Parameters that all sites share."""
        return {}

    def constants(self, shape: Shape) -> dict[str, Parameter]:
        """Tensors that all trials with these settings share and none trains; [...], without K."""
        return {}

    def from_frozen(self, weight: Tensor) -> dict[str, Tensor]:
        """Initial values of the parameters declared FROZEN, from the frozen weight [in, out] of their site."""
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
        """Whether the head, or a site behind the last layer's keys and values, reads more than each example's first token.

        If no method in a pass does, the last layer computes the rest for first tokens alone; T is then the number of examples.
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

    def sample_step_inputs(self, shape: Shape, random: np.random.Generator) -> Mapping[str, ArrayLike]:
        """Random vectors of one training step [n]; the formula finds them among its parameters, as [K, 1, n]."""
        return {}

    def eval_inputs(self, shape: Shape) -> Mapping[str, ArrayLike]:
        """The constants that take their place in evaluation."""
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

    def declared_parameters(self, shape: Shape) -> Iterator[tuple[str, Parameter]]:
        """Every parameter of a trial but those of the head, with its name, in the order of declaration.

        Names are "norm.<number>.weight", "norm.<number>.bias", "<layer>.<site>.<parameter>" and "shared.<parameter>".
        """
        kinds = {"none": (), "biases": ("bias",), "all": ("weight", "bias")}[self.norms]
        for number in range(2 * shape.layers + 1):
            yield from ((f"norm.{number}.{kind}", Parameter(shape=(shape.width,), init=FROZEN)) for kind in kinds)
        places = [(layer, site) for layer in range(shape.layers) for site in self.sites if site != "embeddings"]
        for layer, site in [*places, *((0, site) for site in self.sites if site == "embeddings")]:
            yield from ((f"{layer}.{site}.{name}", p) for name, p in self.parameters(shape, layer, site).items())
        yield from ((f"{SHARED}.{name}", p) for name, p in self.shared(shape).items())

    def counts(self, shape: Shape) -> tuple[int, int]:
        """(weights, module): numbers that training moves, in matrices alone and with vectors; LayerNorms and head excluded.

        Where a mask prunes before the first step, the entries that stay trainable count as weights.
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

    def stored(self, shape: Shape) -> float:
        """How many numbers of 32 bits have to be stored to use the trained module. By default all of `module`."""
        return self.counts(shape)[1]

    def settings(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in fields(self)}
