"""The form of classification tasks: the head has one logit per class, and the loss is cross-entropy."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from trainables.tasks.forms.form import Form, LabelColumn, Metric

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

# Metrics of class 1 in a task with two classes.
BINARY_METRICS: tuple[Metric, ...] = ("f1", "precision", "recall")
# If labels occur less often than this on average, the column is taken to hold numbers or identifiers and is refused.
MIN_PER_CLASS = 2
# If a class has a larger share of the train split than this, the report mentions it.
IMBALANCE = 0.9


class Classification(Form):
    """Labels, loss, predictions and metrics of classification tasks; `Form` describes the attributes and methods."""

    name = "classification"
    metrics = ("accuracy", "f1", "matthews", "macro_f1", "precision", "recall")
    # With unbalanced classes, always predicting the largest one gives a high accuracy but a low macro F1.
    always_reported = ("accuracy", "macro_f1")
    outputs = 0
    fingerprint_key = False

    def read_labels(self, columns: Sequence[LabelColumn]) -> tuple[list[list[float]], int]:
        words = [_words(column) for column in columns]
        classes = _classes(columns, words)
        return [[float(classes.index(word)) for word in column] for column in words], len(classes)

    def check_metric(self, metric: Metric, outputs: int) -> None:
        if metric in BINARY_METRICS and outputs != 2:
            raise ValueError(f"metric {metric!r} needs two classes and there are {outputs}; use 'macro_f1'")

    def strata(self, labels: np.ndarray) -> np.ndarray:
        """The strata are the classes: return the labels [n] as integers."""
        return labels.astype("int64")

    def constant_outputs(self, train_labels: Sequence[float], num_examples: int, outputs: int) -> np.ndarray:
        """Return outputs [num_examples, outputs]: 1 for the most frequent class of the train split, 0 for the others."""
        import numpy as np

        found = np.zeros((num_examples, outputs), np.float32)
        found[:, np.bincount(np.asarray(train_labels, int)).argmax()] = 1
        return found

    def predictions(self, outputs: np.ndarray) -> np.ndarray:
        return outputs.argmax(1).astype("float64")

    def losses(self, logits: Tensor, labels: Tensor) -> Tensor:
        import torch.nn.functional as F

        return F.cross_entropy(logits.flatten(0, 1), labels.flatten().long(), reduction="none").view_as(labels)

    def notes(self, train_labels: Sequence[float]) -> tuple[str, ...]:
        largest = max(Counter(train_labels).values()) / len(train_labels)
        if largest <= IMBALANCE:
            return ()
        return (f"{100 * largest:.1f} % of the train examples have the same label",)


CLASSIFICATION = Classification()


def _words(column: LabelColumn) -> list[str]:
    """Return the labels as texts, so that 1, 1.0 and "1" are one class. Raises ValueError for a missing or fractional label."""
    words = []
    for number, label in enumerate(column.values, start=1):
        whole = isinstance(label, float) and label.is_integer()
        word = str(int(label)) if whole else "" if label is None else str(label).strip()
        where = column.where_row(number)
        if word in ("", "-1", "nan"):
            raise ValueError(f"{where}: the label is missing ({label!r}); remove the row")
        if isinstance(label, float | dict | list) and not whole:
            raise ValueError(f"{where}: {label!r} is no class; for numbers set regression=True")
        words.append(word)
    return words


def _classes(columns: Sequence[LabelColumn], words: list[list[str]]) -> list[str]:
    """Return the sorted class names; if all are numbers, they are sorted by value.

    Raises ValueError if there are fewer than two, if the files differ, or if there are too many for the number of rows.
    """
    known = [Counter(names) for names in words]
    for column, counts in zip(columns, known, strict=True):
        if len(counts) < 2:
            raise ValueError(
                f"{column.where}: every label is {next(iter(counts))!r}; a task needs at least two classes"
            )
        if column is columns[0] and len(counts) * MIN_PER_CLASS > len(column.values):
            raise ValueError(
                f"{column.where}: {len(counts)} different labels in {len(column.values)} rows; for numbers set regression=True"
            )
    for word in sorted(set(known[0]) ^ set(known[-1])):
        there, missing = (columns[0], columns[-1]) if word in known[0] else (columns[-1], columns[0])
        raise ValueError(f"{there.path}: label {word!r} of column {there.name!r} does not occur in {missing.path}")
    numeric = all(word.lstrip("-").isdecimal() for word in known[0])
    return sorted(known[0], key=int) if numeric else sorted(known[0])
