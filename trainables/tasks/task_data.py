"""What a task is, and the forms its data takes: raw texts, then packed token arrays.

Standard library only at import: a plan reads the tasks without loading numpy.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import numpy as np

Metric = Literal["accuracy", "precision", "recall", "f1", "matthews", "pearson", "spearman", "macro_f1"]
Source = Literal["glue", "nsmc", "generated", "files"]

CLASSIFICATION_METRICS: tuple[Metric, ...] = ("accuracy", "f1", "matthews", "macro_f1", "precision", "recall")
# Of class 1 among two.
BINARY_METRICS: tuple[Metric, ...] = ("f1", "precision", "recall")
REGRESSION_METRICS: tuple[Metric, ...] = ("pearson", "spearman")


class MissingData(Exception):
    """The environment cannot provide a task's data: exit code 4."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """What is known of a task without reading its data.

    The first of `metrics` is the score. `outputs`: number of classes, 1 for regression, 0 while it has to be found in
    the data. `test_source` says in a report where the test split comes from.
    """

    name: str
    title: str
    metrics: tuple[Metric, ...]
    regression: bool = False
    outputs: int = 2
    source: Source
    test_source: str


@dataclass(frozen=True, kw_only=True)
class Texts:
    """Raw examples of one split, in order. `second` is None for single sentences; labels are class indices or targets."""

    first: list[str]
    second: list[str] | None
    labels: list[float]

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: tuple[int, ...]) -> Texts:
        return Texts(
            first=[self.first[i] for i in indices],
            second=None if self.second is None else [self.second[i] for i in indices],
            labels=[self.labels[i] for i in indices],
        )


@dataclass(frozen=True, kw_only=True)
class SplitIndices:
    """Which examples each split took: rows of the train source, and for `test` of the test source.

    Where a task has no test source, the test indices are rows of the train source too.
    """

    train: tuple[int, ...]
    validation: tuple[int, ...]
    test: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """A task with its examples, split and cut.

    `task` has its outputs filled in. `fingerprint` (16 hex digits) changes with any text, label or the split. `majority`:
    score on the test split of always answering train's commonest class (its mean), percent points. `notes`: sentences for
    the report about examples shared by splits and about imbalance.
    """

    task: Task
    train: Texts
    validation: Texts
    test: Texts
    split_indices: SplitIndices
    fingerprint: str
    majority: float
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Split:
    """Tokenised examples, end to end, special tokens included.

    ids int32 [tokens], token_types int8 [tokens]; example i is ids[offsets[i]:offsets[i + 1]], offsets int64 [n + 1];
    labels float32 [n], class indices or targets.
    """

    ids: np.ndarray
    token_types: np.ndarray
    offsets: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, kw_only=True)
class TaskData:
    """Everything a trial needs of a task. `fingerprint` is the one of the texts and the split."""

    task: Task
    train: Split
    validation: Split
    test: Split
    fingerprint: str
