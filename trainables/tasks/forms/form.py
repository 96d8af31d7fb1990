"""What a task asks of the head: the contract of one form. One file per form implements it.

Standard library only at import: a plan reads the tasks without loading numpy or torch.

Legend: n examples of a split, G rows of a pass, E examples of a row, C outputs of the head.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

Metric = Literal["accuracy", "precision", "recall", "f1", "matthews", "pearson", "spearman", "macro_f1"]


@dataclass(frozen=True, kw_only=True)
class LabelColumn:
    """The label column of one file of the user's: the file's path, the column's name, one value per example."""

    path: Path
    name: str
    values: tuple[Any, ...]

    @property
    def where(self) -> str:
        return f"{self.path}: column {self.name!r}"

    def where_row(self, number: int) -> str:
        """`number` counts examples from 1."""
        return f"{self.path}: row {number}, column {self.name!r}"


@dataclass(frozen=True)
class Form(ABC):
    """How labels are read, which loss trains the head, and what its outputs predict.

    name: as in a sentence: "does not fit a <name>".
    metrics: the metrics that can be computed, the default first.
    always_reported: metrics reported beside the one that a task in the user's own files chose.
    outputs: number of outputs of the head, 0 where it depends on the data.
    fingerprint_key: stands for the form in the fingerprint of a task's data.
    """

    name: ClassVar[str]
    metrics: ClassVar[tuple[Metric, ...]]
    always_reported: ClassVar[tuple[Metric, ...]]
    outputs: ClassVar[int]
    fingerprint_key: ClassVar[bool | str]

    @abstractmethod
    def read_labels(self, columns: Sequence[LabelColumn]) -> tuple[list[list[float]], int]:
        """(labels of each column as class indices or targets, number of outputs of the head).

        `columns` are those of the train file and, where there is one, of the test file. Raises ValueError that names
        file, row and column of a label that does not fit.
        """

    @abstractmethod
    def check_metric(self, metric: Metric, outputs: int) -> None:
        """Raises ValueError where this metric is not defined for so many outputs."""

    @abstractmethod
    def strata(self, labels: np.ndarray) -> np.ndarray:
        """The stratum [n] of each label [n], as integers: a split takes as large a share of each."""

    @abstractmethod
    def constant_outputs(self, train_labels: Sequence[float], num_examples: int, outputs: int) -> np.ndarray:
        """Outputs [num_examples, outputs] of the best model that does not look at its input."""

    @abstractmethod
    def predictions(self, outputs: np.ndarray) -> np.ndarray:
        """Outputs [n, C] of the head -> predictions [n], float64: class indices or values."""

    @abstractmethod
    def losses(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Training loss [G, E] of each example, from logits [G, E, C] and labels float32 [G, E]."""

    @abstractmethod
    def notes(self, train_labels: Sequence[float]) -> tuple[str, ...]:
        """Sentences for the report about the labels of the train split."""
