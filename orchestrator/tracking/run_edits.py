"""MLflow runs and changes to them, as values: what `run_projection` makes of a ledger and `mlflow_store` writes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import NamedTuple

KINDS = ("sweep", "cell", "trial")


class Key(NamedTuple):
    """Identifies a run by its tags. `kind` is one of KINDS, `cell` is "model/task/label" and `trial` a trial id.

    `cell` is empty for the sweep's run, `trial` for those of the sweep and the cells.
    """

    kind: str
    cell: str = ""
    trial: str = ""


@dataclass(frozen=True, kw_only=True)
class DatasetInput:
    """A task's data as an input of a run: `digest` is the fingerprint of its texts, labels and split.

    `source` and `profile` are JSON: where the data came from, and the numbers of examples. `context`: the parts that are used.
    """

    name: str
    digest: str
    source: str
    profile: str
    context: str


@dataclass(frozen=True, kw_only=True)
class RunUpdates:
    """A run with the name, tags, parameters, inputs and parent that it is created with."""

    key: Key
    name: str
    tags: Mapping[str, str]
    params: Mapping[str, str] = field(default_factory=dict)
    inputs: tuple[DatasetInput, ...] = ()
    parent: RunUpdates | None = None


@dataclass(frozen=True, kw_only=True)
class Point:
    """A value of a metric. `time` is the record's, in milliseconds, so that MLflow stores a repeated point only once."""

    key: str
    value: float
    time: int
    step: int


@dataclass(kw_only=True)
class Edit:
    """The changes of one run by a batch of records. `start` and `end` of the run are in milliseconds since 1970.

    `files` maps an artifact's name to its text or to a path relative to the sweep's folder. `status` is an MLflow run status, ""
    for no change.
    """

    run: RunUpdates
    start: int
    points: list[Point] = field(default_factory=list)
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    files: dict[str, str | PurePosixPath] = field(default_factory=dict)
    inputs: tuple[DatasetInput, ...] = ()
    status: str = ""
    end: int = 0
