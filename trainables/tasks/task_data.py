"""Records that describe a task and its data: raw texts, split texts, tokenised examples.

Imports the standard library only, so that `--plan` can describe tasks without loading numpy.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from statistics import median
from typing import TYPE_CHECKING, Any, Literal

from trainables.tasks.forms import FORMS
from trainables.tasks.forms.classification import CLASSIFICATION
from trainables.tasks.forms.form import Form, Metric

if TYPE_CHECKING:
    import numpy as np

Source = Literal["glue", "superglue", "nsmc", "generated", "files", "package"]


class MissingData(Exception):
    """Raised if the data or the tokenizer of a task are not available; the command then ends with exit code 4."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """The properties of a task that are known before its data are read.

    `title`: the task's name in reports. `metrics`: the first one is the score. `outputs`: number of outputs of the head, that is,
    of classes, or 1 for regression; 0 if the data must be read to find it. `test_source`: the origin of the test split, for the
    report. `classes`: names of the classes, by index; those of the user's own data are known once the data are read. `positive`:
    the class of the user's own data that the score is computed for, the last one; "" if the score is not of one class.
    """

    name: str
    title: str
    metrics: tuple[Metric, ...]
    form: Form = CLASSIFICATION
    outputs: int = 2
    source: Source
    test_source: str
    classes: tuple[str, ...] = ()
    positive: str = ""

    def to_record(self) -> dict[str, Any]:
        """Return the task as JSON values: the form as its name and, if it is fitted to the train labels, its fields."""
        record = {**{field.name: getattr(self, field.name) for field in fields(self)}, "form": self.form.name}
        return record if self.form == FORMS[self.form.name] else {**record, "form_fields": asdict(self.form)}

    @staticmethod
    def from_record(record: dict[str, Any]) -> Task:
        values = {name: value for name, value in record.items() if name != "form_fields"}
        tuples = {name: tuple(record[name]) for name in ("metrics", "classes")}
        form = replace(FORMS[record["form"]], **record.get("form_fields", {}))
        return Task(**{**values, **tuples, "form": form})


@dataclass(frozen=True, kw_only=True)
class Texts:
    """Examples as raw texts. `second`: second texts, or None if each example is one text; `labels`: class indices or targets."""

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
class PackagedTask:
    """A task that another package offers (`search_spaces/plugins.py`), with the function that returns its texts.

    `read()` returns the train examples and those of the test split, or None for a test split drawn from train. It must return the
    same examples at every call. `task.source` is "package".
    """

    task: Task
    read: Callable[[], tuple[Texts, Texts | None]]


def packaged_task(name: str, found: Any) -> Task:
    """Return the task of `found` if this is a PackagedTask of that name. Raises TypeError."""
    if not isinstance(found, PackagedTask):
        raise TypeError(f"the task {name!r} must be a PackagedTask of trainables.tasks.task_data")
    if (found.task.name, found.task.source) != (name, "package"):
        raise TypeError(
            f"the task {name!r} has the name {found.task.name!r} and the source {found.task.source!r}: these "
            f"must be {name!r} and 'package'"
        )
    return found.task


@dataclass(frozen=True, kw_only=True)
class SplitIndices:
    """The examples of each split, as row numbers (from 0) of the train, validation and test file.

    If a task has no validation or test file, the indices of that split are row numbers of the train file, too.
    """

    train: tuple[int, ...]
    validation: tuple[int, ...]
    test: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """A task with the texts of its splits, cut to the numbers of examples that the recipe allows.

    `task.outputs` is known here, and `task.form` is fitted to the train labels. `fingerprint`: hash (16 hex digits) of texts,
    labels and split. `majority`: score on the test split, in percent points, of predicting train's most frequent class (its mean
    target) for every example. `notes`: sentences for the report about examples that several splits share, about unbalanced
    classes, and on how targets are standardised. `repeats`: the task with the train and validation splits of the second search of
    a cell, of the third, and so on (`Budget.searches`); the test split is the same.
    """

    task: Task
    train: Texts
    validation: Texts
    test: Texts
    split_indices: SplitIndices
    fingerprint: str
    majority: float
    notes: tuple[str, ...] = ()
    repeats: tuple[Loaded, ...] = ()

    def of_search(self, number: int) -> Loaded:
        """Return the task with the splits that this search of a cell uses; searches count from 0."""
        return self.repeats[number - 1] if number else self


@dataclass(frozen=True, kw_only=True)
class Split:
    """The tokenised examples of one split, concatenated without padding, special tokens included.

    `ids` int32 [T] and `token_types` int8 [T] hold all T tokens; `offsets` int64 [n + 1]: example i of n is
    ids[offsets[i]:offsets[i + 1]]. `labels` float32 [n] are class indices or standardised targets (`Form.encode`).
    """

    ids: np.ndarray
    token_types: np.ndarray
    offsets: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, kw_only=True)
class CutCount:
    """How many of a number of examples have more tokens than `max_length` allows, and the median length of all in tokens."""

    examples: int
    cut: int
    median: float

    @staticmethod
    def of(lengths: Sequence[int], max_length: int) -> CutCount:
        """Return the count for the lengths of examples that are not cut yet, special tokens included."""
        return CutCount(
            examples=len(lengths), cut=sum(length > max_length for length in lengths), median=median(lengths)
        )

    def __str__(self) -> str:
        return f"{self.cut:,} of {self.examples:,} (median length {self.median:g})"


@dataclass(frozen=True, kw_only=True)
class TaskData:
    """The content of a tokens file: a task with its tokenised splits. `fingerprint` is that of `Loaded`."""

    task: Task
    train: Split
    validation: Split
    test: Split
    fingerprint: str
