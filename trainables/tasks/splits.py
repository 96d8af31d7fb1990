"""Chooses the examples of the train, validation and test splits.

The validation split is a tenth of the train file, stratified by class or by bins of the targets (see `Form.strata`). It is drawn
with a constant seed, so that it is the same for every method and trial seed. Only where a space repeats its searches
(`Budget.searches`), each search of a cell has another one; the test split is the same for all. If a recipe limits the number of
examples, the subsets are drawn after the split, with the same seed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

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
    search: int = 0,
) -> SplitIndices:
    """Return the row numbers of the three splits. `labels` and `test_labels`: labels of the train file and of the test file.

    Without `test_labels`, a tenth of the train file becomes the test split. `train_examples` and `test_examples` limit the splits
    (0: no limit); the validation split shrinks with train. `search`: number of the search whose train and validation splits are
    returned; the test split is the same for all. Raises ValueError if there are fewer than 20 examples to split.
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
    seed = SEED + search
    train, validation = _divide(rest, _tenth(len(rest)), strata, seed)
    if 0 < train_examples < len(train):
        keep = max(MIN_VALIDATION, round(len(validation) * train_examples / len(train)))
        train, validation = _cut(train, train_examples, strata, seed), _cut(validation, keep, strata, seed)
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


def _cut(indices: np.ndarray, number: int, strata: np.ndarray, seed: int = SEED) -> np.ndarray:
    """Return `number` of the indices, sorted and stratified; all of them if `number` is 0 or at least as large."""
    if not 0 < number < len(indices):
        return indices
    return _divide(indices, number, strata, seed, small_strata="drawn")[1]


def _divide(
    indices: np.ndarray,
    number: int,
    strata: np.ndarray,
    seed: int = SEED,
    small_strata: Literal["drawn", "others"] = "others",
) -> tuple[np.ndarray, np.ndarray]:
    """Draw `number` of the indices, stratified. Return (the others, the drawn), both sorted.

    A stratum that is too small for both parts goes where `small_strata` says.
    """
    import numpy as np
    from sklearn.model_selection import train_test_split

    own = strata[indices]
    classes, counts = np.unique(own, return_counts=True)
    if counts.min() >= 2 and min(number, len(indices) - number) >= len(classes):
        others, drawn = train_test_split(indices, test_size=number, random_state=seed, stratify=own)
    elif small_strata == "others":
        others, drawn = _allocate(indices, number, own, seed)
    else:
        drawn, others = _allocate(indices, len(indices) - number, own, seed)
    return np.sort(others), np.sort(drawn)


def _allocate(indices: np.ndarray, number: int, own: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw `number` of the indices so that each stratum gives its share, to a whole example, and keeps one as long as possible.

    For strata that are too small for scikit-learn's stratified split. `own`: the stratum of each index. Shares are rounded by the
    largest remainders, equal ones in random order. Returns (the others, the drawn).
    """
    import numpy as np

    random = np.random.RandomState(seed)
    order = random.permutation(len(indices))
    classes, counts = np.unique(own, return_counts=True)
    shares = number * (counts - 1) / max(1, (counts - 1).sum())
    taken = np.minimum(np.floor(shares).astype(int), counts - 1)
    ranks = np.lexsort((random.permutation(len(classes)), taken - shares))
    for limits in (np.minimum(taken + 1, counts - 1), counts - 1, counts):
        for place in ranks:
            taken[place] += max(0, min(limits[place] - taken[place], number - taken.sum()))
    drawn = np.concatenate([order[own[order] == c][:n] for c, n in zip(classes, taken, strict=True)])
    return np.delete(indices, drawn), indices[drawn]
