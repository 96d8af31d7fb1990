"""The form of classification tasks: the head has one logit per class, and the loss is cross-entropy."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from trainables.tasks.forms.class_names import (
    NUMBER,
    class_name,
    counts_text,
    evident_positive,
    in_order,
    printable,
    read_names,
    similar_names,
)
from trainables.tasks.forms.form import Form, LabelColumn, Labels, Metric

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

# Metrics of class 1, the positive one, in a task with two classes.
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

    def read_labels(self, columns: Sequence[LabelColumn], metric: Metric, positive: str = "") -> Labels:
        only_booleans = all(isinstance(label, bool) for column in columns for label in column.values)
        names = [read_names(column, only_booleans) for column in columns]
        _check_classes(columns, names)
        classes = in_order(names[0])
        positive = _positive_class(classes, class_name(positive), metric)
        if positive:
            classes = [name for name in classes if name != positive] + [positive]
        place = {name: float(index) for index, name in enumerate(classes)}
        score_class = positive if metric in BINARY_METRICS else ""
        notes = _class_notes(columns, names)
        return Labels(
            values=[[place[name] for name in own] for own in names],
            outputs=len(classes),
            classes=tuple(classes),
            positive=score_class,
            notes=(*notes, f"{metric} is computed for the class {score_class!r}") if score_class else tuple(notes),
        )

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

    def collapsed(self, predictions: np.ndarray) -> bool:
        return bool((predictions == predictions[0]).all())

    def losses(self, logits: Tensor, labels: Tensor) -> Tensor:
        import torch.nn.functional as F

        return F.cross_entropy(logits.flatten(0, 1), labels.flatten().long(), reduction="none").view_as(labels)

    def notes(self, labels: Mapping[str, Sequence[float]], classes: Sequence[str]) -> tuple[str, ...]:
        told = []
        known = {label for own in labels.values() for label in own}
        for part, own in labels.items():
            missing = [
                printable(classes[int(label)]) if classes else f"{label:g}" for label in sorted(known - set(own))
            ]
            if missing:
                told.append(
                    f"the {part} split has no example of {len(missing)} of {len(known)} classes: {', '.join(missing)}"
                )
        largest = max(Counter(labels["train"]).values()) / len(labels["train"])
        if largest > IMBALANCE:
            told.append(f"{100 * largest:.1f} % of the train examples have the same label")
        return tuple(told)


CLASSIFICATION = Classification()


def _check_classes(columns: Sequence[LabelColumn], names: Sequence[list[str]]) -> None:
    """Raises ValueError if a file has one class, the train file almost as many classes as rows, or another file a class more."""
    for column, own in zip(columns, names, strict=True):
        if len(set(own)) < 2:
            raise ValueError(f"{column.where}: every label is {own[0]!r}; a task needs at least two classes")
    if len(set(names[0])) * MIN_PER_CLASS > len(names[0]):
        raise ValueError(
            f"{columns[0].where}: {len(set(names[0]))} different labels in {len(names[0])} rows; for numbers set regression=True"
        )
    for column, own in zip(columns[1:], names[1:], strict=True):
        for name in in_order(set(own) - set(names[0])):
            raise ValueError(
                f"{column.path}: label {name!r} of column {column.name!r} does not occur in {columns[0].path}"
            )


def _positive_class(classes: Sequence[str], positive: str, metric: Metric) -> str:
    """Return the class that the user or the names call positive, "" if none is needed.

    Raises ValueError if `metric` needs a positive class and cannot have one, or if it cannot be told.
    """
    if positive and positive not in classes:
        raise ValueError(f"positive = {positive!r} is none of the classes {', '.join(map(repr, classes))}")
    if positive and len(classes) != 2:
        raise ValueError(
            f"positive = {positive!r}: there are {len(classes)} classes; only one of two can be the positive class"
        )
    if positive or metric not in BINARY_METRICS:
        return positive
    if len(classes) != 2:
        raise ValueError(f"metric {metric!r} needs two classes and there are {len(classes)}; use 'macro_f1'")
    found = evident_positive(classes)
    if found is None:
        choices = " or ".join(f"positive={name!r}" for name in classes)
        raise ValueError(f"metric {metric!r} is computed for one class, the positive one; say which: {choices}")
    return found


def _class_notes(columns: Sequence[LabelColumn], names: Sequence[list[str]]) -> list[str]:
    """Sentences on the classes of each file, on spellings that may be one class, and on classes that a file lacks."""
    told = [
        f"{len(set(own))} classes in {column.path.name}: {counts_text(own)}"
        for column, own in zip(columns, names, strict=True)
    ]
    for group in similar_names(set(names[0])):
        told.append(f"{' and '.join(map(repr, group))} are different classes; if they are one, give them one spelling")
    for column, own in zip(columns, names, strict=True):
        spellings: dict[str, set[str]] = defaultdict(set)
        for name, label in zip(own, column.values, strict=True):
            spellings[name].add(str(label))
        for name in in_order(name for name in spellings if NUMBER.fullmatch(name) and len(spellings[name]) > 1):
            told.append(
                f"{', '.join(map(repr, sorted(spellings[name])))} in {column.path.name} are read as one class, the number {name}"
            )
    for column, own in zip(columns[1:], names[1:], strict=True):
        missing = in_order(set(names[0]) - set(own))
        if missing:
            told.append(f"{column.path.name} has no example of {', '.join(map(repr, missing))}")
    return told
