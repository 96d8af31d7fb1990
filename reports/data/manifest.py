"""The manifest of a sweep (`sweep.json`) as typed records: its models, tasks, methods, budget and software versions.

`parse` checks and converts every field, because a tracking store may contain files that other programs wrote.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, TypeVar

from search_spaces.dimensions import grid_size
from search_spaces.language import Budget, Cell, Choice, Dimension, Range, Recipe, Scalar

Record = TypeVar("Record", Budget, Recipe)


@dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """A backbone of the sweep.

    weights: hash of its files. source: the name or path that it was loaded from, with the revision if one was pinned.
    commit: of the Hub's repository; "" if it came from a folder.
    total: number of parameters of the pretrained model; the report's shares of parameters are relative to it.
    """

    title: str
    weights: str
    total: int
    source: str
    commit: str


@dataclass(frozen=True, kw_only=True)
class TaskFacts:
    """A task of the sweep.

    score: name of the metric by which trials are selected and compared. metrics: all metrics, that one included.
    split: hash of the texts, the labels and the split. more_splits: the same of the cells' further searches, if any.
    train, validation, test: numbers of examples. test_source: where the test split was taken from.
    majority: test score of always predicting the training split's most frequent class (in regression: its mean label), percent
        points; None if unknown.
    notes: remarks on the data, for readers of the report.
    positive: the class that the score is computed for, if it is of one class of the user's own data; else "".
    """

    title: str
    score: str
    split: str
    metrics: tuple[str, ...]
    train: int
    validation: int
    test: int
    majority: float | None
    test_source: str
    notes: tuple[str, ...]
    positive: str
    more_splits: tuple[str, ...] = ()

    def split_of(self, search: int) -> str:
        """The hash of texts, labels and split that this search of a cell uses; searches count from 0."""
        return (self.split, *self.more_splits)[search] if search <= len(self.more_splits) else ""

    @property
    def score_title(self) -> str:
        """The name of the score for readers, with the class that it is computed for: "f1 of 'alarm'"."""
        return f"{self.score} of {self.positive!r}" if self.positive else self.score


@dataclass(frozen=True, kw_only=True)
class MethodFacts:
    """One method row: a method with its fixed settings and its searched hyperparameters.

    name: the method's name in `trainables/methods`. kind: the method's title, which several rows may share.
    title: the row's title in tables, unique within the sweep. family: group of methods ("adapter", "low rank", ...).
    settings: the values of all settings that are not searched, defaults included; empty in sweeps from before they were recorded.
    ablated: whether finals are to be evaluated again with the method removed from spans of layers. removable: whether the method
        supports this.
    """

    name: str
    title: str
    kind: str
    family: str
    paper: str
    fixed: Mapping[str, Scalar]
    searched: Mapping[str, Dimension]
    settings: Mapping[str, Scalar]
    ablated: bool
    removable: bool


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """The content of `sweep.json`; `models`, `tasks` and `methods` are by name or label, in the order of the space.

    reductions: options and events that made the sweep smaller than its space ("--epochs 2"); empty for a full run.
    command: the command line that started the sweep. commit, dirty: the project's git commit, and whether it had uncommitted
    changes. earlier_code: (commit, dirty) of the code that ran before the sweep was continued with other code.
    """

    sweep: str
    # Name of the sweep's folder in the folder --out.
    folder: str
    space: str
    title: str
    paper: str
    seed: int
    reductions: tuple[str, ...]
    command: str
    models: Mapping[str, ModelFacts]
    tasks: Mapping[str, TaskFacts]
    methods: Mapping[str, MethodFacts]
    recipe: Recipe
    budget: Budget
    versions: Mapping[str, str]
    commit: str
    dirty: bool
    earlier_code: tuple[tuple[str, bool], ...]
    device: str

    @property
    def cells(self) -> list[Cell]:
        """All cells of the sweep, ordered by model, task and method as in the tables."""
        return [
            Cell(model=model, task=task, method=method)
            for model in self.models
            for task in self.tasks
            for method in self.methods
        ]

    def grid_of(self, label: str) -> int | None:
        """Number of configurations in the search grid of this method row; None if it searches a range of real numbers."""
        size = grid_size(self.methods[label].searched)
        return int(size) if math.isfinite(size) else None

    def planned_tries(self, label: str) -> int:
        """Number of configurations that each search of this method row may try: the budget, or the grid's size if smaller."""
        return int(min(self.budget.trials, grid_size(self.methods[label].searched)))

    @property
    def searches(self) -> bool:
        """Whether any cell has more than one configuration to choose from."""
        return any(self.planned_tries(label) > 1 for label in self.methods)

    def planned_trials(self, label: str) -> int:
        """Number of search trials in each search of this method row: configurations times search seeds."""
        return self.planned_tries(label) * self.budget.search_seeds


def parse(record: Any) -> Manifest:
    """Convert the JSON of `sweep.json`; raises ValueError that tells which field is missing or what type is wrong."""
    if not isinstance(record, Mapping):
        raise ValueError("sweep.json: must hold an object")
    try:
        return _manifest(record)
    except KeyError as error:
        raise ValueError(f"sweep.json: the field {error.args[0]!r} is missing") from None
    except (TypeError, AttributeError) as error:
        raise ValueError(f"sweep.json: a field has the wrong type: {error}") from None


def _manifest(record: Mapping[str, Any]) -> Manifest:
    return Manifest(
        sweep=str(record["sweep"]),
        folder=str(record.get("folder") or record["sweep"]),
        space=str(record["space"]),
        title=str(record.get("title") or record["space"]),
        paper=str(record.get("paper", "")),
        seed=int(record.get("seed", 0)),
        reductions=tuple(str(part) for part in record.get("stamp", ())),
        command=str(record.get("command", "")),
        models={str(name): _model(facts) for name, facts in _in_order(record, "models", "name")},
        tasks={name: _task(name, facts) for name, facts in _in_order(record, "tasks", "name")},
        methods={label: _method(label, facts) for label, facts in _in_order(record, "methods", "label")},
        recipe=_known(Recipe, record["recipe"]),
        budget=_known(Budget, record["budget"]),
        versions={str(name): str(version) for name, version in record.get("versions", {}).items()},
        commit=str(record.get("commit", "")),
        dirty=bool(record.get("dirty", False)),
        earlier_code=tuple((str(commit), bool(dirty)) for commit, dirty in record.get("earlier_code", ())),
        device=str(record.get("device", "")),
    )


def _in_order(record: Mapping[str, Any], part: str, key: str) -> list[tuple[Any, Any]]:
    """Return the (name, facts) pairs of one part of the manifest, in the order of the space.

    The order is taken from the lists under `resolved`, because a store may have sorted the keys of JSON objects.
    """
    resolved = record.get("resolved", {}).get(part, ())
    order = [each[key] if isinstance(each, Mapping) else each for each in resolved]
    found = list(record[part].items())
    return sorted(found, key=lambda item: order.index(item[0]) if item[0] in order else len(order))


def _model(facts: Mapping[str, Any]) -> ModelFacts:
    return ModelFacts(
        title=str(facts["title"]),
        weights=str(facts.get("weights", "")),
        total=int(facts["total"]),
        source=str(facts.get("source", "")),
        commit=str(facts.get("commit", "")),
    )


def _task(name: str, facts: Mapping[str, Any]) -> TaskFacts:
    majority = facts.get("majority")
    return TaskFacts(
        title=str(facts.get("title") or name),
        score=str(facts["score"]),
        split=str(facts.get("split", "")),
        metrics=tuple(str(metric) for metric in facts.get("metrics", (facts["score"],))),
        train=int(facts["train"]),
        validation=int(facts["validation"]),
        test=int(facts["test"]),
        majority=None if majority is None else float(majority),
        test_source=str(facts.get("test_source", "")),
        notes=tuple(str(note) for note in facts.get("notes", ())),
        positive=str(facts.get("positive", "")),
        more_splits=tuple(str(split) for split in facts.get("more_splits", ())),
    )


def _method(label: str, facts: Mapping[str, Any]) -> MethodFacts:
    return MethodFacts(
        name=str(facts["name"]),
        title=str(facts.get("title") or label),
        kind=str(facts.get("kind") or facts["name"]),
        family=str(facts.get("family", "")),
        paper=str(facts.get("paper", "")),
        fixed=dict(facts.get("fixed", {})),
        searched={str(key): _dimension(key, value) for key, value in facts.get("searched", {}).items()},
        settings=dict(facts.get("settings", {})),
        ablated=bool(facts.get("ablated", False)),
        removable=bool(facts.get("removable", False)),
    )


def _dimension(key: str, value: Mapping[str, Any]) -> Dimension:
    if "choice" in value:
        return Choice(tuple(value["choice"]))
    if "range" in value:
        low, high = value["range"]
        return Range(float(low), float(high), log=bool(value.get("log", False)))
    raise ValueError(f"sweep.json: searched {key!r} is neither a choice nor a range")


def _known(record: type[Record], values: Mapping[str, Any]) -> Record:
    """Build the record and ignore fields that it does not have: another version of the project may have written those."""
    names = {field.name for field in fields(record)}
    return record(**{key: value for key, value in values.items() if key in names})
