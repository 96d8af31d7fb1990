"""Which examples are train, validation and test.

The validation split is a tenth of train, stratified as the task's form says (by class, or by bins of the targets). It is
the same for every method and seed: its own seed is a constant. Cuts to fewer examples are drawn after the split, with the
same constant.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from trainables.tasks.forms.form import Form
from trainables.tasks.task_data import SplitIndices

if TYPE_CHECKING:
    import numpy as np

SEED = 20_000
SHARE = 0.1
# A cut validation split keeps at least this many examples: fewer cannot tell configurations apart.
MIN_VALIDATION = 50


def split(
    labels: Sequence[float],
    test_labels: Sequence[float] | None,
    form: Form,
    train_examples: int,
    test_examples: int,
) -> SplitIndices:
    """Split `labels` of the train source into train and validation; 0 examples means all of them.

    Without `test_labels` a tenth of the train source becomes the test split first. Raises ValueError when there are
    too few examples to split.
    """
    import numpy as np

    strata = form.strata(np.asarray(labels))
    rest = np.arange(len(strata))
    if test_labels is None:
        rest, test = _divide(rest, _tenth(len(rest)), strata)
        test_strata = strata
    else:
        test_strata = form.strata(np.asarray(test_labels))
        test = np.arange(len(test_strata))
    train, validation = _divide(rest, _tenth(len(rest)), strata)
    if 0 < train_examples < len(train):
        keep = max(MIN_VALIDATION, round(len(validation) * train_examples / len(train)))
        train, validation = _cut(train, train_examples, strata), _cut(validation, keep, strata)
    return SplitIndices(
        train=tuple(train.tolist()),
        validation=tuple(validation.tolist()),
        test=tuple(_cut(test, test_examples, test_strata).tolist()),
    )


def _tenth(number: int) -> int:
    if number < 20:
        raise ValueError(f"{number} examples are too few to set a tenth of them aside: at least 20 are needed")
    return round(SHARE * number)


def _cut(indices: np.ndarray, number: int, strata: np.ndarray) -> np.ndarray:
    if not 0 < number < len(indices):
        return indices
    return _divide(indices, number, strata)[1]


def _divide(indices: np.ndarray, number: int, strata: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(the others, `number` of them), both ascending; stratified where every class can be on both sides."""
    import numpy as np
    from sklearn.model_selection import train_test_split

    classes, counts = np.unique(strata[indices], return_counts=True)
    possible = counts.min() >= 2 and min(number, len(indices) - number) >= len(classes)
    others, taken = train_test_split(
        indices, test_size=number, random_state=SEED, stratify=strata[indices] if possible else None
    )
    return np.sort(others), np.sort(taken)
