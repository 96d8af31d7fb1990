"""Which tensors a trial has, where each lies in its flat row of P numbers, and how it starts.

Names: "<layer>.<site>.<parameter>", "shared.<parameter>", "norm.<place>.weight|bias", "head.<name>", "backbone.<tensor>" for a
tensor of the encoder that is itself trained, "backbone.<tensor>.<parameter>" for what its weight is computed from.

Legend: G trials of a group, P parameters of one trial.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from trainables.backbone.backbone import Backbone
from trainables.methods.backbone_weights import BACKBONE
from trainables.methods.base import Method
from trainables.methods.context import Values
from trainables.methods.initializers import FROZEN, WORDS, Init, truncated
from trainables.methods.spec import HeadReads, Parameter, Shape, Site
from trainables.seeds import derive

HEAD_START = truncated(0.02)


@dataclass(frozen=True)
class ParameterSlice:
    """One tensor of a trial: its name, what was declared, and its place in the row."""

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

    def stacked(self, G: int) -> tuple[int, ...]:
        """Shape in a group of G trials: [G, ...] for matrices, [G, 1, N] for vectors."""
        return (G, *self.shape) if self.is_matrix else (G, 1, *self.shape)


@dataclass(frozen=True)
class ParamGroup:
    """Neighbouring columns of the flat buffers that the optimiser updates alike."""

    start: int
    stop: int
    decayed: bool
    lr: float | None


class ParameterLayout:
    """The row of a trial of this method. `names` lists what is under each prefix; `runs` part what is trained."""

    def __init__(self, method: Method, backbone: Backbone, outputs: int):
        self.method, self.shape, self.outputs = method, backbone.shape, outputs
        declared = self._declare(method, backbone, outputs)
        declared.sort(key=lambda item: _order(item[1]))
        self.entries: list[ParameterSlice] = []
        place = 0
        for name, parameter in declared:
            size = math.prod(parameter.shape)
            self.entries.append(ParameterSlice(name, parameter, place, place + size))
            place += size
        self.size = place
        self.by_name = {e.name: e for e in self.entries}
        self.names: dict[str, list[str]] = {}
        for e in self.entries:
            prefix, _, name = e.name.rpartition(".")
            self.names.setdefault(prefix, []).append(name)
        self.runs = self._runs()

    @staticmethod
    def _declare(method: Method, backbone: Backbone, outputs: int) -> list[tuple[str, Parameter]]:
        shape = backbone.shape
        return [*method.declared_parameters(shape), *head_parameters(shape, outputs, method.head_reads)]

    def _runs(self) -> list[ParamGroup]:
        runs: list[ParamGroup] = []
        for e in self.entries:
            if not e.parameter.trained:
                continue
            if runs and (runs[-1].decayed, runs[-1].lr) == (e.decayed, e.parameter.lr):
                runs[-1] = ParamGroup(runs[-1].start, e.stop, e.decayed, e.parameter.lr)
            else:
                runs.append(ParamGroup(e.start, e.stop, e.decayed, e.parameter.lr))
        return runs

    def initial(self, seed: int, backbone: Backbone) -> Tensor:
        """A trial's row [P] before its first step: pretrained values where there are any, else drawn from its seed."""
        row = torch.zeros(self.size)
        for e in self.entries:
            own_seed = derive(seed, "init", e.name)
            if e.parameter.start == FROZEN:
                value = self.frozen_start(e, backbone).detach()
            elif e.parameter.start == WORDS:
                value = draw_words(backbone, e.shape[0], own_seed)
            else:
                value = draw(e.parameter, own_seed)
            row[e.start : e.stop] = value.reshape(-1).cpu()
        return row

    def frozen_start(self, e: ParameterSlice, backbone: Backbone) -> Tensor:
        """What an entry declared FROZEN starts from."""
        prefix, _, name = e.name.rpartition(".")
        if prefix.startswith("norm."):
            return getattr(backbone.norms[int(prefix.removeprefix("norm."))], name)
        if prefix.startswith(BACKBONE):
            return backbone.module.get_parameter(e.name.removeprefix(BACKBONE + "."))
        layer, _, site = prefix.partition(".")
        return frozen_starts(self.method, backbone, int(layer), site)[name]  # type: ignore[arg-type]

    def constants(self, backbone: Backbone) -> Values:
        """The method's tensors that no trial trains, drawn once per backbone from a fixed seed."""

        def make() -> Values:
            declared = self.method.constants(backbone.shape).items()
            return Values({name: draw(p, derive(0, "constant", name)).to(backbone.device) for name, p in declared})

        return backbone.cached(("constants", self.method), make)


def frozen_starts(method: Method, backbone: Backbone, layer: int, site: Site) -> dict[str, Tensor]:
    """`Method.from_frozen` of a site's linear map, computed once per backbone."""
    weight = backbone.map_at(layer, site).weight
    return backbone.cached((method, layer, site), lambda: method.from_frozen(weight.detach().T))


def head_parameters(shape: Shape, outputs: int, reads: HeadReads) -> list[tuple[str, Parameter]]:
    d, dense = shape.width, []
    if reads == "own" and not shape.pooler:
        dense = [("head.dense", Parameter(shape=(d, d), start=HEAD_START)), ("head.dense_bias", Parameter(shape=(d,)))]
    return [
        *dense,
        ("head.out", Parameter(shape=(d, outputs), start=HEAD_START)),
        ("head.out_bias", Parameter(shape=(outputs,))),
    ]


def draw(parameter: Parameter, seed: int) -> Tensor:
    """The start of one tensor, from a generator of its own: independent of every other tensor and trial."""
    generator = torch.Generator().manual_seed(seed)
    value, start = torch.zeros(parameter.shape), parameter.start
    if start.kind == "constant":
        return value.fill_(start.a)
    if start.kind == "identity":
        return torch.eye(*parameter.shape)
    if start.kind == "normal":
        return value.normal_(0, start.a, generator=generator)
    if start.kind == "truncated":
        return torch.nn.init.trunc_normal_(value, std=start.a, a=-2 * start.a, b=2 * start.a, generator=generator)
    low, high = _bounds(start, parameter.shape)
    return value.uniform_(low, high, generator=generator)


def draw_words(backbone: Backbone, number: int, seed: int) -> Tensor:
    """[number, D]: vectors of words drawn with equal probability, one word at most once."""
    vocabulary = backbone.words.weight.detach()
    return vocabulary[torch.randperm(len(vocabulary), generator=torch.Generator().manual_seed(seed))[:number]]


def _bounds(start: Init, shape: tuple[int, ...]) -> tuple[float, float]:
    if start.kind == "uniform":
        return start.a, start.b
    rows, columns = shape[-2:]
    bound = {
        "relu_uniform": math.sqrt(6 / rows),
        "linear_uniform": 1 / math.sqrt(rows),
        "glorot": math.sqrt(6 / (rows + columns)),
    }[start.kind]
    return -bound, bound


def _order(parameter: Parameter) -> tuple[bool, bool, float]:
    """Sort key: matrices first, then what is not decayed, equal learning rates side by side; last what is not trained."""
    return not parameter.trained, not (len(parameter.shape) > 1 and parameter.decayed), parameter.lr or 0.0
