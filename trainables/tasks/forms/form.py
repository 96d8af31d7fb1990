"""The abstract base class of forms. Each form is implemented in a file of its own.

Imports the standard library only, so that `--plan` can describe tasks without loading numpy or torch.

Legend: n examples of a split, G packed rows of a forward pass, E examples of each row, C outputs of the head.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

Metric = Literal["accuracy", "precision", "recall", "f1", "matthews", "pearson", "spearman", "macro_f1"]


@dataclass(frozen=True, kw_only=True)
class LabelColumn:
    """The label column of one of the user's files: the path of the file, the column's name, and one value per example.

    numbers: the row of each value in the file, from 1; rows may have been dropped before.
    """

    path: Path
    name: str
    values: tuple[Any, ...]
    numbers: tuple[int, ...] = ()

    @property
    def where(self) -> str:
        return f"{self.path}: column {self.name!r}"

    def where_row(self, index: int) -> str:
        """Return the start of an error message about the value at this index."""
        return f"{self.path}: row {self.numbers[index] if self.numbers else index + 1}, column {self.name!r}"


@dataclass(frozen=True, kw_only=True)
class Labels:
    """The labels of the user's files, as numbers.

    values: for each file, one class index or target per example. outputs: number of outputs of the head.
    classes: names of the classes, by index; () for numbers. positive: the class that the score is computed for,
    the last one; "" if the score is not of one class. notes: sentences about the labels for the plan and the report.
    """

    values: list[list[float]]
    outputs: int
    classes: tuple[str, ...] = ()
    positive: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Form(ABC):
    """How labels are read, which loss trains the head, and what its outputs predict.

    name: the form's name, also used in messages: "does not fit a <name>".
    metrics: all metrics of this form, the default one first.
    always_reported: metrics that are reported in addition to the one that a `FileTask` names.
    outputs: number of outputs of the head, or 0 if it depends on the data.
    fingerprint_key: value that represents the form in the fingerprint (hash) of a task's data. It changes only if training or
    scoring of the form changes, so that older results are not taken for new ones. label_type: numpy type of the labels there.

    Labels are encoded before training: `encode` gives what the loss compares with the head's outputs, and `decode` turns
    encoded labels and predictions back. What a form takes from the train labels for this are its fields (`fitted`).
    """

    name: ClassVar[str]
    metrics: ClassVar[tuple[Metric, ...]]
    always_reported: ClassVar[tuple[Metric, ...]]
    outputs: ClassVar[int]
    fingerprint_key: ClassVar[bool | str]
    label_type: ClassVar[str] = "<f4"

    @abstractmethod
    def read_labels(self, columns: Sequence[LabelColumn], metric: Metric, positive: str = "") -> Labels:
        """Return the labels of each column as numbers.

        `columns` are the label columns of the train file and of the validation and test files, if there are any; `positive` is
        the class that the user calls positive. Raises ValueError naming file, row and column of a label that is not valid, or
        if `metric` is not defined for these classes.
        """

    def fitted(self, train_labels: Sequence[float]) -> Form:
        """Return the form for a task with these train labels: with another scale, for example, or the same form.

        Raises ValueError if the form cannot be trained with them.
        """
        return self

    def encode(self, labels: Sequence[float]) -> np.ndarray:
        """Return the labels as the loss needs them, float32 [n]."""
        import numpy as np

        return np.asarray(labels, np.float32)

    def decode(self, encoded: np.ndarray) -> np.ndarray:
        """Return encoded labels or predictions [n] as class indices, or as values in the unit of the user's labels, float64."""
        return encoded.astype("float64")

    @abstractmethod
    def strata(self, labels: np.ndarray) -> np.ndarray:
        """Return the stratum of each label, as integers [n], for labels [n]. Splits take the same share of every stratum."""

    @abstractmethod
    def constant_outputs(self, train_labels: Sequence[float], num_examples: int, outputs: int) -> np.ndarray:
        """Return outputs float32 [num_examples, outputs] of the best constant model, the baseline of reports.

        `train_labels` are not encoded.
        """

    @abstractmethod
    def predictions(self, outputs: np.ndarray) -> np.ndarray:
        """Return predictions float64 [n], encoded like the labels, for outputs [n, C] of the head."""

    @abstractmethod
    def collapsed(self, predictions: np.ndarray) -> bool:
        """Return whether the model answers the same whatever its input is, for encoded predictions [n]."""

    @abstractmethod
    def losses(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the training loss [G, E] of each example, for logits [G, E, C] and encoded labels float32 [G, E].

        It must not depend on fields of the form, since trials of several tasks are trained with the form of one of them.
        """

    @abstractmethod
    def notes(self, labels: Mapping[str, Sequence[float]], classes: Sequence[str]) -> tuple[str, ...]:
        """Return sentences for the report about unusual labels of splits.

        `labels`: those of "train" and of each split that was drawn from the same file. `classes`: names of the classes, by index;
        () if they have no names.
        """
