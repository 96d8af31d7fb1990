"""Chooses the examples of the train, validation and test splits.

The validation split is a tenth of the train file, stratified by class or by bins of the targets (see `Form.strata`). It is drawn
with a constant seed, so that it is the same for every method and trial seed. If a recipe limits the number of examples, the
subsets are drawn after the split, with the same seed.
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
# Smallest validation split after a cut: the scores of fewer examples are too noisy to compare configurations.
MIN_VALIDATION = 50


def split(
    labels: Sequence[float],
    test_labels: Sequence[float] | None,
    form: Form,
    train_examples: int,
    test_examples: int,
) -> SplitIndices:
    """Return the row numbers of the three splits. `labels` and `test_labels`: labels of the train file and of the test file.

    Without `test_labels`, a tenth of the train file becomes the test split. `train_examples` and `test_examples` limit the splits
    (0: no limit); the validation split shrinks with train. Raises ValueError if there are fewer than 20 examples to split.
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
    """Return a tenth of `number`, rounded. Raises ValueError if `number` is below 20."""
    if number < 20:
        raise ValueError(f"{number} examples are too few to set a tenth of them aside: at least 20 are needed")
    return round(SHARE * number)


def _cut(indices: np.ndarray, number: int, strata: np.ndarray) -> np.ndarray:
    """Return `number` of the indices, drawn by strata, or all if `number` is 0 or not smaller than their number."""
    if not 0 < number < len(indices):
        return indices
    return _divide(indices, number, strata)[1]


def _divide(indices: np.ndarray, number: int, strata: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Draw `number` of the indices. Return (the others, the drawn), both sorted; stratified if both can have every stratum."""
    import numpy as np
    from sklearn.model_selection import train_test_split

    classes, counts = np.unique(strata[indices], return_counts=True)
    possible = counts.min() >= 2 and min(number, len(indices) - number) >= len(classes)
    others, taken = train_test_split(
        indices, test_size=number, random_state=SEED, stratify=strata[indices] if possible else None
    )
    return np.sort(others), np.sort(taken)
