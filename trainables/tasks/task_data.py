"""What a task is, and the forms its data takes: raw texts, then packed token arrays.

Standard library only at import: a plan reads the tasks without loading numpy.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal

from trainables.tasks.forms import FORMS
from trainables.tasks.forms.classification import CLASSIFICATION
from trainables.tasks.forms.form import Form, Metric

if TYPE_CHECKING:
    import numpy as np

Source = Literal["glue", "nsmc", "generated", "files"]


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
    form: Form = CLASSIFICATION
    outputs: int = 2
    source: Source
    test_source: str

    def to_record(self) -> dict[str, Any]:
        """The task as JSON values; the form by its name."""
        return {**{field.name: getattr(self, field.name) for field in fields(self)}, "form": self.form.name}

    @staticmethod
    def from_record(record: dict[str, Any]) -> Task:
        return Task(**{**record, "metrics": tuple(record["metrics"]), "form": FORMS[record["form"]]})


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
