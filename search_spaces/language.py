"""The classes and functions with which a space file describes an experiment: models, tasks, methods, search, budget.

Imports the standard library only, so that `--plan`, `--list` and the reports load neither torch nor ray. Whether methods and
tasks of the given names exist is checked in `orchestrator/planning`.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any, Literal, get_args

from search_spaces.checks import check_name, check_rules, check_types, checked_limit, is_number, is_text, is_whole
from search_spaces.dimensions import (
    Choice,
    Dimension,
    Range,
    Scalar,
    check_grid,
)
from search_spaces.dimensions import choice as choice
from search_spaces.dimensions import log_uniform as log_uniform
from search_spaces.dimensions import uniform as uniform
from search_spaces.file_task import FileTask
from search_spaces.quantization import BLOCK_SIZES, Compute, Nf4

Precision = Literal["fp32", "bf16", "nf4"]
Search = Literal["tpe", "random", "grid", "multi"]
# Hyperparameters of every trial; all others are settings of its method.
TRAINING = ("lr", "batch_size", "epochs")
# Fields of a recipe that limit the number of examples of each task.
LIMITS = ("train_examples", "test_examples")


@dataclass(frozen=True)
class MethodEntry:
    """One row of a space: a method with its settings, each a fixed value or a dimension to search.

    `label` is the row's name in tables; two rows of one method (r = 64 and r = 32, say) need different labels. `own_search`:
    hyperparameters that are not in `settings`, the learning rate included, are searched in the ranges that the method's file
    declares; the planner adds these ranges. `ablated`: see the function `ablated`.
    """

    name: str
    label: str
    settings: Mapping[str, Scalar | Dimension]
    own_search: bool = False
    ablated: bool = False

    @property
    def searched(self) -> dict[str, Dimension]:
        return {key: value for key, value in self.settings.items() if isinstance(value, Dimension)}

    @property
    def fixed(self) -> dict[str, Scalar]:
        return {key: value for key, value in self.settings.items() if not isinstance(value, Dimension)}


def method(name: str, *, label: str | None = None, **settings: Scalar | Dimension) -> MethodEntry:
    """Return a row: a method of `trainables/methods` with its settings, each a fixed value or a dimension to search.

    `lr`, `batch_size` and `epochs` given here override those in the space's `search` for this row.
    """
    check_name("method", name)
    return MethodEntry(name, check_name("method label", label or name), settings)


def own_search(name: str, *, label: str | None = None, **settings: Scalar | Dimension) -> MethodEntry:
    """Return a row that searches all settings not given here, learning rate included, in the ranges of the method's file."""
    return replace(method(name, label=label, **settings), own_search=True)


def ablated(entry: MethodEntry) -> MethodEntry:
    """Return the row with ablation: its finals are also scored with the method removed from each span of adjacent layers.

    These are scores on the validation split, without re-training. For methods that cannot be removed the report says so.
    """
    return replace(entry, ablated=True)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How every trial of a space is trained; all of it enters the hash that is a trial's id.

    AdamW with linear warm-up over the fraction `warmup` of all steps and linear decay to zero, gradients clipped to the norm
    `clip`, evaluation after every epoch; the best epoch's parameters count. A trial ends after `patience` epochs without a better
    score. `train_examples` and `test_examples` limit the data: one number for all tasks (0: all examples), or a dict of tasks'
    names to numbers, such as {"agreement": 400}; tasks that it does not name have all their examples. `dropout` < 0: the rates of
    the backbone's configuration. `precision` is that of matrix products; all else is fp32. With "nf4", the frozen linear maps are
    stored in 4 bits, in blocks of `nf4_block_size` weights with scales in 8 bits if `nf4_double_quant`; `nf4_compute` is then the
    precision of matrix products. The reasons for the defaults are in `docs/decisions.md`.
    """

    epochs: int = 20
    patience: int = 5
    warmup: float = 0.1
    weight_decay: float = 0.1
    clip: float = 1.0
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    max_length: int = 128
    dropout: float = -1.0
    precision: Precision = "fp32"
    train_examples: int | Mapping[str, int] = 0
    test_examples: int | Mapping[str, int] = 0
    nf4_block_size: int = 64
    nf4_double_quant: bool = True
    nf4_compute: Compute = "bf16"

    def __post_init__(self) -> None:
        check_types("recipe", self)
        for name in LIMITS:
            object.__setattr__(self, name, checked_limit(f"recipe: {name}", getattr(self, name)))
        rules = (
            ("epochs", 1 <= self.epochs <= 10_000, "between 1 and 10000"),
            ("patience", self.patience >= 1, "at least 1"),
            ("warmup", 0 <= self.warmup < 1, "a share of all steps in [0, 1)"),
            ("weight_decay", 0 <= self.weight_decay < math.inf, "zero or more"),
            ("clip", 0 < self.clip < math.inf, "more than zero"),
            ("beta1", 0 <= self.beta1 < 1, "in [0, 1)"),
            ("beta2", 0 <= self.beta2 < 1, "in [0, 1)"),
            ("eps", 0 < self.eps < 1, "in (0, 1)"),
            ("max_length", 8 <= self.max_length <= 32768, "between 8 and 32,768 tokens"),
            ("dropout", self.dropout < 1, "below 1"),
            ("precision", self.precision in ("fp32", "bf16", "nf4"), "'fp32', 'bf16' or 'nf4'"),
            ("nf4_block_size", self.nf4_block_size in BLOCK_SIZES, f"one of {', '.join(map(str, BLOCK_SIZES))}"),
            ("nf4_compute", self.nf4_compute in ("bf16", "fp32"), "'bf16' or 'fp32'"),
        )
        check_rules("recipe", self, rules)

    @property
    def nf4(self) -> Nf4 | None:
        """How the frozen linear maps are stored in 4 bits; None in other precisions."""
        if self.precision != "nf4":
            return None
        return Nf4(block_size=self.nf4_block_size, double_quant=self.nf4_double_quant, compute=self.nf4_compute)

    def of_task(self, task: str) -> Recipe:
        """Return the recipe of this task's trials, in which the limits of the data are numbers."""
        return replace(
            self, train_examples=self.limit("train_examples", task), test_examples=self.limit("test_examples", task)
        )

    def limit(self, name: Literal["train_examples", "test_examples"], task: str) -> int:
        """Return the limit of this task's examples (0: all)."""
        value: int | Mapping[str, int] = getattr(self, name)
        return value.get(task, 0) if isinstance(value, Mapping) else value

    def of_tasks(self, tasks: Collection[str]) -> Recipe:
        """Return the recipe without limits of other tasks than these."""
        limits: dict[str, Any] = {name: getattr(self, name) for name in LIMITS}
        for name, limit in limits.items():
            if isinstance(limit, Mapping):
                limits[name] = {task: number for task, number in limit.items() if task in tasks}
        return replace(self, **limits)


@dataclass(frozen=True, kw_only=True)
class Budget:
    """The budget of every cell of a space.

    `trials`: number of configurations, stopped ones included. `search_seeds`: number of seeds of each; the winner is chosen by
    the mean score. `final_seeds`: number of finals. `searches`: how often all of this is repeated, each time on another
    validation split of the training data and with other seeds; every search has its own `trials`, winner and `final_seeds`
    finals. `in_flight`: number of trials of a search that run at once; trial i is proposed, and stopped or not, from the results
    of trials 0..i-in_flight alone. So the result of a sweep depends neither on timing nor on the number of GPUs. `search`: how
    configurations are proposed. "tpe": an evenly spread start, then Optuna's TPE, or the rest of a grid that `trials` covers.
    "random": independent uniform draws. "grid": all configurations; `trials` must be at least as many. "multi": as "tpe", but
    for two objectives, a high validation score and few trained parameters. ASHA's rungs are
    at `grace`, `grace` * `reduction`, ... epochs, below a trial's number of epochs; no trial is stopped at a rung that has fewer
    than `min_values` scores. `brackets`: as in Hyperband, configurations are divided among so many brackets, which decide on
    their own; each has its first rung `reduction` times as late as the one before.
    """

    trials: int = 8
    search_seeds: int = 1
    final_seeds: int = 3
    searches: int = 1
    search: Search = "tpe"
    in_flight: int = 2
    grace: int = 2
    reduction: int = 2
    min_values: int = 3
    brackets: int = 1

    def __post_init__(self) -> None:
        check_types("budget", self)
        rules = (
            ("trials", 1 <= self.trials <= 10_000, "between 1 and 10000 per cell"),
            ("search_seeds", 1 <= self.search_seeds <= 100, "between 1 and 100"),
            ("final_seeds", 1 <= self.final_seeds <= 100, "between 1 and 100"),
            ("searches", 1 <= self.searches <= 100, "between 1 and 100"),
            ("search", self.search in get_args(Search), "'tpe', 'random', 'grid' or 'multi'"),
            ("in_flight", self.in_flight >= 1, "at least 1"),
            ("grace", self.grace >= 1, "at least 1 epoch"),
            ("reduction", self.reduction >= 2, "at least 2"),
            ("min_values", self.min_values >= 1, "at least 1"),
            ("brackets", 1 <= self.brackets <= 20, "between 1 and 20"),
        )
        check_rules("budget", self, rules)

    @property
    def proposed(self) -> str:
        """How configurations are proposed, as a part of a sentence; nothing for what is usual."""
        return {
            "tpe": "",
            "random": ", drawn at random",
            "grid": ", the whole grid",
            "multi": ", proposed for high scores with few trained parameters",
        }[self.search]

    def first_rungs(self, epochs: int) -> list[int]:
        """The first rung of each bracket of ASHA for trials of at most so many epochs, ascending.

        `epochs` itself stands for a bracket without rungs, which stops no trial. There is one such bracket at most, so that the
        brackets may be fewer than `brackets`.
        """
        return sorted({min(epochs, self.grace * self.reduction**number) for number in range(self.brackets)})

    def comparisons(self, epochs: int) -> str:
        """Which trials of at most so many epochs ASHA compares, as a part of a sentence; nothing for what is usual."""
        first, found = self.first_rungs(epochs), ""
        if len(first) > 1:
            rungs = ", ".join(str(rung) if rung < epochs else "none" for rung in first)
            found = f", in {len(first)} brackets (first rungs: epochs {rungs})"
        if self.search == "multi":
            found += ", each trial compared only with those that train no more parameters"
        return found


@dataclass(frozen=True, kw_only=True, order=True)
class Cell:
    """One (model, task, method label) of a space: the unit of comparison."""

    model: str
    task: str
    method: str

    def __str__(self) -> str:
        return f"{self.model}/{self.task}/{self.method}"


@dataclass(frozen=True, kw_only=True)
class Space:
    """One experiment. `search` holds the hyperparameters of all rows, searched or fixed; each row needs `lr` and `batch_size`.

    `search` may hold `epochs`, at most the recipe's number: the trial's schedule then has that length. `paper` names published
    results for the report. `folder` is the folder of the space file.
    """

    name: str = ""
    title: str = ""
    models: tuple[str, ...]
    tasks: tuple[str | FileTask, ...]
    methods: tuple[MethodEntry, ...]
    search: Mapping[str, Scalar | Dimension]
    recipe: Recipe = field(default_factory=Recipe)
    budget: Budget = field(default_factory=Budget)
    seed: int = 0
    paper: str = ""
    folder: Path = field(default=Path("."), compare=False)

    def __post_init__(self) -> None:
        # Lists are accepted too, but become tuples, because lists cannot be hashed.
        for part in ("models", "tasks", "methods"):
            object.__setattr__(self, part, _listed(part, getattr(self, part)))
        check_types("space", self)
        _check_parts(self)
        for kind, names in (
            ("model", list(self.models)),
            ("task", [task_name(task) for task in self.tasks]),
            ("method label", [entry.label for entry in self.methods]),
        ):
            twice = {name for name in names if names.count(name) > 1}
            if twice:
                raise ValueError(f"{kind} {sorted(twice)[0]!r} stands twice in the space")
        for name in LIMITS:
            limit, known = getattr(self.recipe, name), [task_name(task) for task in self.tasks]
            for task in limit if isinstance(limit, Mapping) else ():
                if task not in known:
                    raise ValueError(
                        f"recipe: {name} names {task!r}, which is none of the space's tasks {', '.join(known)}"
                    )
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"space: seed = {self.seed}: must lie in [0, 2**32)")
        for entry in self.methods:
            for name in ("batch_size",) if entry.own_search else ("lr", "batch_size"):
                if name not in self.values_of(entry):
                    raise ValueError(f"method {entry.label!r}: {name} is neither in `search` nor among its settings")
            if self.budget.search == "grid" and not entry.own_search:
                check_grid(f"method {entry.label!r}", self.dimensions_of(entry), self.budget.trials)
            for key, value in self.values_of(entry).items():
                _check_hyperparameter(f"method {entry.label!r}: {key}", key, value, self.recipe.epochs)

    @property
    def cells(self) -> list[Cell]:
        """Every (model, task, method), in the order in which the space lists them."""
        return [
            Cell(model=model, task=task_name(task), method=entry.label)
            for model, task, entry in product(self.models, self.tasks, self.methods)
        ]

    @property
    def in_flight(self) -> int:
        """Number of trials of a search that run at once. All can, if neither proposals nor ASHA depend on other trials."""
        budget = self.budget
        if budget.search in ("random", "grid") and budget.grace >= self.recipe.epochs:
            return budget.trials * budget.search_seeds
        return budget.in_flight

    def values_of(self, entry: MethodEntry) -> dict[str, Scalar | Dimension]:
        """All hyperparameters of a row, fixed or searched: those in `search`, overridden and completed by the row's settings."""
        return {**self.search, **entry.settings}

    def dimensions_of(self, entry: MethodEntry) -> dict[str, Dimension]:
        """The searched hyperparameters of a row, by name, in a fixed order."""
        return {key: value for key, value in self.values_of(entry).items() if isinstance(value, Dimension)}

    def entry(self, label: str) -> MethodEntry:
        return next(entry for entry in self.methods if entry.label == label)


def task_name(task: str | FileTask) -> str:
    return task if isinstance(task, str) else task.name


def _listed(part: str, value: object) -> tuple[Any, ...]:
    if not isinstance(value, tuple | list):
        raise ValueError(f"space: {part} = {value!r}: must be a tuple; a single one is written {part}=(...,)")
    if not value:
        raise ValueError(f"space: {part} is empty; it needs at least one entry")
    return tuple(value)


def _check_parts(space: Space) -> None:
    for model in space.models:
        if not model or not is_text(model):
            raise ValueError(f"space: models holds {model!r}; a model is a known name, owner/name, or a directory")
    for task in space.tasks:
        if not isinstance(task, str | FileTask):
            raise ValueError(f"space: tasks holds {task!r}; a task is a known name, or a FileTask(...)")
    for entry in space.methods:
        if not isinstance(entry, MethodEntry):
            raise ValueError(f"space: methods holds {entry!r}; write method({entry!r}) instead")
    if not isinstance(space.search, Mapping):
        raise ValueError(f"space: search = {space.search!r}: must be a dict such as {{'lr': choice(1e-4, 1e-3), ...}}")
    for name, kind in (("recipe", Recipe), ("budget", Budget)):
        if not isinstance(getattr(space, name), kind):
            raise ValueError(f"space: {name} = {getattr(space, name)!r}: must be {name}={kind.__name__}(...)")


def _check_hyperparameter(where: str, key: str, value: Scalar | Dimension, epochs: int) -> None:
    most = {"batch_size": 1024, "epochs": epochs}
    if isinstance(value, Range):
        bounds: tuple[Scalar, ...] = (value.low, value.high)
    else:
        bounds = value.values if isinstance(value, Choice) else (value,)
    for bound in bounds:
        if key == "lr" and not (is_number(bound) and 0 < float(bound) < 10):
            raise ValueError(f"{where} = {bound!r}: must be a number in (0, 10)")
        if key in most and not (is_whole(bound) and not isinstance(value, Range) and 1 <= int(bound) <= most[key]):
            raise ValueError(f"{where} = {bound!r}: must be whole numbers between 1 and {most[key]}")
