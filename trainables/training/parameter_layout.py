"""The tensors of a trial: their names, their columns in the trial's flat row of P numbers, and their initial values.

Names: "<layer>.<site>.<parameter>", "shared.<parameter>", "norm.<number>.weight|bias", "head.<name>", "backbone.<tensor>" for
a tensor of the encoder that is trained itself, "backbone.<tensor>.<part>" for a part from which such a tensor is computed.

Legend: K stacked trials, P parameters of one trial.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from trainables.backbone.backbone import Backbone
from trainables.methods.backbone_weights import BACKBONE
from trainables.methods.base import Method
from trainables.methods.context import Values
from trainables.methods.initializers import FROZEN, ONES, WORDS, Init, truncated
from trainables.methods.spec import HeadReads, Parameter, Shape, Site
from trainables.seeds import derive

HEAD_INIT = truncated(0.02)


@dataclass(frozen=True)
class ParameterSlice:
    """One tensor of a trial: its name, its declaration, and its columns start to stop - 1 in the trial's row."""

    name: str
    parameter: Parameter
    start: int
    stop: int

    @property
    def shape(self) -> tuple[int, ...]:
        return self.parameter.shape

    @property
    def size(self) -> int:
        return self.stop - self.start

    @property
    def is_matrix(self) -> bool:
        return len(self.shape) > 1

    @property
    def decayed(self) -> bool:
        return self.is_matrix and self.parameter.decayed

    def stacked(self, K: int) -> tuple[int, ...]:
        """Returns the shape of this tensor for K stacked trials: [K, ...] for a matrix, [K, 1, N] for a vector of length N."""
        return (K, *self.shape) if self.is_matrix else (K, 1, *self.shape)


@dataclass(frozen=True)
class ParamGroup:
    """Adjacent columns start to stop - 1 of the flat buffers that have the same weight decay and learning rate.

    `lr`: a peak learning rate of their own; None for the trial's. `lr_factor`: what it is multiplied with.
    """

    start: int
    stop: int
    decayed: bool
    lr: float | None
    lr_factor: float = 1.0


class ParameterLayout:
    """The order of all tensors in the flat row of a trial, for one method on one backbone.

    entries: the tensors in the order of the row. size: P. by_name: the entries by their full name. names: the last parts of
    the names by prefix, such as "<layer>.<site>". param_groups: the trained columns, grouped as in a torch optimiser.
    """

    def __init__(self, method: Method, backbone: Backbone, outputs: int):
        self.method, self.shape, self.outputs = method, backbone.shape, outputs
        declared = self._declare(method, backbone, outputs)
        declared.sort(key=lambda item: _order(item[1]))
        self.entries: list[ParameterSlice] = []
        offset = 0
        for name, parameter in declared:
            size = math.prod(parameter.shape)
            self.entries.append(ParameterSlice(name, parameter, offset, offset + size))
            offset += size
        self.size = offset
        self.by_name = {e.name: e for e in self.entries}
        self.names: dict[str, list[str]] = {}
        for e in self.entries:
            prefix, _, name = e.name.rpartition(".")
            self.names.setdefault(prefix, []).append(name)
        self.param_groups = self._param_groups()

    @staticmethod
    def _declare(method: Method, backbone: Backbone, outputs: int) -> list[tuple[str, Parameter]]:
        shape = backbone.shape
        return [*method.declared_parameters(shape), *head_parameters(shape, outputs, method.head_reads)]

    def _param_groups(self) -> list[ParamGroup]:
        groups: list[ParamGroup] = []
        for e in self.entries:
            if not e.parameter.trained:
                continue
            group = ParamGroup(e.start, e.stop, e.decayed, e.parameter.lr, e.parameter.lr_factor)
            if groups and replace(group, start=groups[-1].start) == replace(groups[-1], stop=e.stop):
                groups[-1] = replace(groups[-1], stop=e.stop)
            else:
                groups.append(group)
        return groups

    def initial_values(self, seed: int, backbone: Backbone) -> Tensor:
        """Returns a trial's row [P] before its first step, on the CPU.

        Parameters declared FROZEN and those of a pretrained head start at pretrained values; all others are drawn from the
        trial's seed.
        """
        row = torch.zeros(self.size)
        for e in self.entries:
            own_seed = derive(seed, "init", e.name)
            if e.name in backbone.pretrained_head:
                value = backbone.pretrained_head[e.name]
            elif e.parameter.init == FROZEN:
                value = self.frozen_initial_value(e, backbone).detach()
            elif e.parameter.init == WORDS:
                value = draw_words(backbone, e.shape[0], own_seed)
            else:
                value = draw(e.parameter, own_seed)
            row[e.start : e.stop] = value.reshape(-1).cpu()
        return row

    def frozen_initial_value(self, e: ParameterSlice, backbone: Backbone) -> Tensor:
        """Returns the initial value of an entry declared FROZEN: a pretrained tensor, or what the method computes from it."""
        prefix, _, name = e.name.rpartition(".")
        if prefix.startswith("norm."):
            return getattr(backbone.norms[int(prefix.removeprefix("norm."))], name)
        if prefix.startswith(BACKBONE):
            return backbone.module.get_parameter(e.name.removeprefix(BACKBONE + "."))
        layer, _, site = prefix.partition(".")
        return frozen_initial_values(self.method, backbone, int(layer), site)[name]  # type: ignore[arg-type]

    def constants(self, backbone: Backbone) -> Values:
        """Returns the tensors of `Method.constants`, which no trial trains, drawn once per backbone from a fixed seed."""

        def make() -> Values:
            declared = self.method.constants(backbone.shape).items()
            return Values({name: draw(p, derive(0, "constant", name)).to(backbone.device) for name, p in declared})

        return backbone.cached(("constants", self.method), make)


def frozen_initial_values(method: Method, backbone: Backbone, layer: int, site: Site) -> dict[str, Tensor]:
    """Returns `Method.from_frozen` of the weight of a site's linear map; computed once per backbone and cached."""
    return backbone.cached(
        (method, layer, site), lambda: method.from_frozen(backbone.frozen(layer, site)[0].detach().T)
    )


def head_parameters(shape: Shape, outputs: int, reads: HeadReads) -> list[tuple[str, Parameter]]:
    """Returns the names and declarations of the head's parameters: a linear map, and a dense layer where there is no pooler."""
    d, dense = shape.width, []
    if reads == "own" and shape.dense_head:
        dense = [("head.dense", Parameter(shape=(d, d), init=HEAD_INIT))]
        dense += [("head.dense_bias", Parameter(shape=(d,)))] if shape.dense_biases else []
        dense += [("head.norm", Parameter(shape=(d,), init=ONES))] if shape.head_norm else []
    biases = [("head.out_bias", Parameter(shape=(outputs,)))] if shape.head_biases else []
    return [*dense, ("head.out", Parameter(shape=(d, outputs), init=HEAD_INIT)), *biases]


def draw(parameter: Parameter, seed: int) -> Tensor:
    """Returns the initial value of one tensor, from a generator of its own, so that it does not depend on other tensors."""
    generator = torch.Generator().manual_seed(seed)
    value, init = torch.zeros(parameter.shape), parameter.init
    if init.kind == "constant":
        return value.fill_(init.a)
    if init.kind == "identity":
        return torch.eye(*parameter.shape)
    if init.kind == "normal":
        return value.normal_(0, init.a, generator=generator)
    if init.kind == "truncated":
        return torch.nn.init.trunc_normal_(value, std=init.a, a=-2 * init.a, b=2 * init.a, generator=generator)
    if init.kind == "paired_uniform":
        bound = math.sqrt(2 / parameter.shape[1])
        half = value[:, ::2].uniform_(-bound, bound, generator=generator)
        return half.repeat_interleave(2, dim=1)
    low, high = _bounds(init, parameter.shape)
    return value.uniform_(low, high, generator=generator)


def draw_words(backbone: Backbone, number: int, seed: int) -> Tensor:
    """Returns the word embeddings [number, D] of random vocabulary entries, drawn uniformly without replacement."""
    words = backbone.words
    chosen = torch.randperm(len(words.weight), generator=torch.Generator().manual_seed(seed))[:number]
    return words(chosen.to(words.weight.device)).detach()


def _bounds(init: Init, shape: tuple[int, ...]) -> tuple[float, float]:
    if init.kind == "uniform":
        return init.a, init.b
    rows, columns = shape[-2:]
    bound = {
        "relu_uniform": math.sqrt(6 / rows),
        "linear_uniform": 1 / math.sqrt(rows),
        "glorot": math.sqrt(6 / (rows + columns)),
    }[init.kind]
    return -bound, bound


def _order(parameter: Parameter) -> tuple[bool, bool, float, float]:
    """Sort key: decayed matrices first, then other trained parameters, each group by learning rate; untrained ones last."""
    decayed = len(parameter.shape) > 1 and parameter.decayed
    return not parameter.trained, not decayed, parameter.lr or 0.0, parameter.lr_factor
