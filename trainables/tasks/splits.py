"""Chooses the examples of the train, validation and test splits.

The validation split is a tenth of the train file, stratified by class or by bins of the targets (see `Form.strata`); or whole
groups of rows, or the latest rows, if the user names a column for that. It is drawn with a constant seed, so that it is the same
for every method and trial seed. Only where a space repeats its searches (`Budget.searches`), each search of a cell has another
one, if it is drawn; the test split is the same for all. If a recipe limits the number of examples, the subsets are drawn after
the split, with the same seed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from trainables.tasks.forms.form import Form
from trainables.tasks.split_keys import SplitKeys
from trainables.tasks.task_data import SplitIndices

if TYPE_CHECKING:
    import numpy as np

SEED = 20_000
SHARE = 0.1
# Smallest validation split after a cut: the scores of fewer examples are too noisy to compare configurations.
MIN_VALIDATION = 50
# Number of random draws of groups, of which the best is taken.
GROUP_DRAWS = 50


def split(
    labels: Sequence[float],
    test_labels: Sequence[float] | None,
    form: Form,
    train_examples: int,
    test_examples: int,
    validation_labels: Sequence[float] | None = None,
    keys: SplitKeys | None = None,
    search: int = 0,
) -> SplitIndices:
    """Return the row numbers of the three splits. `labels`, `validation_labels`, `test_labels`: the labels of the three files.

    Without `test_labels`, a tenth of the train file becomes the test split; without `validation_labels`, a tenth of the rest
    becomes the validation split. `keys`: the groups or times of the rows of the train file, if they are not split at random.
    `train_examples` and `test_examples` limit the splits (0: no limit); the validation split shrinks with train. `search`: number
    of the search whose train and validation splits are returned; the test split is the same for all. Raises ValueError if there
    are fewer than 20 examples to split, or if all have the same key.
    """
    import numpy as np

    needed = 20 if test_labels is not None or validation_labels is not None else 22
    if len(labels) < needed and (test_labels is None or validation_labels is None):
        raise ValueError(
            f"{len(labels)} examples are too few to set a tenth of them aside: at least {needed} are needed"
        )
    strata = form.strata(np.asarray(labels))
    rest = np.arange(len(strata))
    if test_labels is None:
        rest, test = _set_aside(rest, strata, keys)
        test_strata = strata
    else:
        test_strata = form.strata(np.asarray(test_labels))
        test = np.arange(len(test_strata))
    seed = SEED + search
    if validation_labels is None:
        train, validation = _set_aside(rest, strata, keys, seed)
        validation_strata = strata
    else:
        validation_strata = form.strata(np.asarray(validation_labels))
        train, validation = rest, np.arange(len(validation_strata))
    if 0 < train_examples < len(train):
        keep = max(MIN_VALIDATION, round(len(validation) * train_examples / len(train)))
        train, validation = _cut(train, train_examples, strata, seed), _cut(validation, keep, validation_strata, seed)
    return SplitIndices(
        train=tuple(train.tolist()),
        validation=tuple(validation.tolist()),
        test=tuple(_cut(test, test_examples, test_strata).tolist()),
    )


def _set_aside(
    indices: np.ndarray, strata: np.ndarray, keys: SplitKeys | None, seed: int = SEED
) -> tuple[np.ndarray, np.ndarray]:
    """Return (the others, about a tenth of the indices), both sorted. Raises ValueError if it cannot be set aside."""
    if len(indices) < 20:
        raise ValueError(f"only {len(indices)} examples are left to set a tenth of them aside: at least 20 are needed")
    number = round(SHARE * len(indices))
    if keys is None:
        return _divide(indices, number, strata, seed)
    own = keys.take(indices.tolist())
    if len(set(own.times or own.groups)) < 2:
        raise ValueError(
            f"column {keys.column!r} has the single value {own.groups[0]!r} in the {len(indices)} rows that are to be split; "
            f"at least two are needed, three without a test file"
        )
    return _divide_by_time(indices, number, own) if own.times else _divide_groups(indices, number, strata, own, seed)


def _divide_by_time(indices: np.ndarray, number: int, keys: SplitKeys) -> tuple[np.ndarray, np.ndarray]:
    """Return (the earlier, the later) indices, about `number` later ones. Rows of the same time are not divided."""
    import numpy as np

    times = np.asarray(keys.times)
    order = np.argsort(times, kind="stable")
    steps = 1 + np.flatnonzero(np.diff(times[order]))
    place = steps[np.abs(steps - (len(indices) - number)).argmin()]
    return np.sort(indices[order[:place]]), np.sort(indices[order[place:]])


def _divide_groups(
    indices: np.ndarray, number: int, strata: np.ndarray, keys: SplitKeys, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return (the others, about `number` indices), both sorted and nearly stratified. Rows of one group are not divided.

    Of `GROUP_DRAWS` random orders of the groups, the one is taken whose first groups have the size and the strata that are
    nearest to those wanted. (scikit-learn's StratifiedGroupKFold takes minutes for 100,000 groups.)
    """
    import numpy as np

    random = np.random.RandomState(seed)
    groups, own = (np.unique(values, return_inverse=True)[1] for values in (keys.groups, strata[indices]))
    sizes, wanted = np.bincount(groups), np.bincount(own) * number / len(indices)
    best, least = np.zeros(len(indices), bool), np.inf
    for _ in range(GROUP_DRAWS):
        order = random.permutation(len(sizes))
        place = np.abs(np.cumsum(sizes[order])[:-1] - number).argmin()
        drawn = np.isin(np.arange(len(sizes)), order[: place + 1])[groups]
        distance = np.abs(np.bincount(own[drawn], minlength=len(wanted)) - wanted).sum()
        if distance < least:
            best, least = drawn, distance
    return indices[~best], indices[best]


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
