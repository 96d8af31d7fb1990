"""The split: its sizes, that it is fixed, and how it is cut."""

from collections import Counter

import numpy as np
import pytest

from trainables.tasks.forms.classification import CLASSIFICATION
from trainables.tasks.forms.regression import REGRESSION
from trainables.tasks.split_keys import SplitKeys
from trainables.tasks.splits import split


def halves(number: int, share: float = 0.5) -> list[float]:
    return [float(i < share * number) for i in range(number)]


def cut(labels, test_labels=None, *, regression=False, train=0, test=0):
    return split(labels, test_labels, REGRESSION if regression else CLASSIFICATION, train, test)


@pytest.mark.parametrize(
    ("number", "validation"), [(8551, 855), (3668, 367), (5749, 575), (2490, 249), (2000, 200), (25, 2)]
)
def test_a_tenth_of_train_is_rounded_as_in_the_protocol(number, validation):
    found = cut(halves(number), halves(20))
    assert len(found.validation) == validation
    assert sorted(found.train + found.validation) == list(range(number))
    assert found.test == tuple(range(20))


def test_the_split_is_the_same_every_time_and_does_not_touch_the_global_generator():
    np.random.seed(1)
    before = np.random.get_state()[1].copy()
    one = cut(halves(200), None, train=60)
    np.random.seed(2)
    assert cut(halves(200), None, train=60) == one
    np.random.seed(1)
    cut(halves(200))
    assert (np.random.get_state()[1] == before).all()


def test_validation_and_cuts_keep_the_share_of_every_class():
    labels = halves(1000, 0.3)
    found = cut(labels, halves(300, 0.3), train=200, test=100)
    for part, source in ((found.train, labels), (found.validation, labels), (found.test, halves(300, 0.3))):
        assert sum(source[i] for i in part) / len(part) == pytest.approx(0.3, abs=0.005)


def test_regression_targets_are_stratified_by_score_bins():
    targets = np.random.default_rng(0).beta(0.5, 2.0, 2000) * 5
    found = cut(targets.tolist(), [0.0], regression=True)
    edges = np.quantile(targets, [0.2, 0.4, 0.6, 0.8])
    bins = Counter(np.digitize(targets[list(found.validation)], edges).tolist())
    assert set(bins.values()) == {40}


def test_a_cut_takes_train_and_validation_in_proportion_and_no_fewer_than_fifty_to_validate_on():
    labels = halves(2000)
    sizes = {
        train: (len(found.train), len(found.validation))
        for train in (0, 20, 320, 900, 5000)
        for found in [cut(labels, halves(40), train=train)]
    }
    assert sizes == {0: (1800, 200), 20: (20, 50), 320: (320, 50), 900: (900, 100), 5000: (1800, 200)}
    small = cut(halves(200), halves(40), train=100)
    assert (len(small.train), len(small.validation)) == (100, 20)


def test_a_cut_is_taken_out_of_the_uncut_split():
    labels = halves(2000)
    whole, less = cut(labels, labels), cut(labels, labels, train=320, test=400)
    assert set(less.train) < set(whole.train)
    assert set(less.validation) < set(whole.validation)
    assert len(less.test) == 400


def test_without_a_test_source_a_tenth_of_train_is_set_aside_before_the_validation_split():
    found = cut(halves(1000))
    assert (len(found.test), len(found.validation), len(found.train)) == (100, 90, 810)
    assert sorted(found.train + found.validation + found.test) == list(range(1000))


def test_many_small_classes_are_split_without_stratification_rather_than_refused():
    labels = [float(i // 2) for i in range(100)]
    found = cut(labels, labels)
    assert (len(found.train), len(found.validation)) == (90, 10)


@pytest.mark.parametrize("number", [1, 5, 19])
def test_too_few_examples_are_refused(number):
    with pytest.raises(ValueError, match=rf"{number} examples are too few"):
        cut(halves(number), halves(10))


def test_each_search_has_another_validation_split_and_all_have_one_test_split():
    labels = [float(i % 3) for i in range(300)]
    first, second, again = (split(labels, None, CLASSIFICATION, 0, 0, search=search) for search in (0, 1, 1))
    assert first == split(labels, None, CLASSIFICATION, 0, 0)
    assert second == again
    assert first.test == second.test
    assert len(set(first.validation) & set(second.validation)) < len(first.validation) / 2
    for each in (first, second):
        assert sorted((*each.train, *each.validation, *each.test)) == list(range(300))


def test_each_search_draws_another_part_of_the_train_file_where_a_recipe_cuts_it():
    labels = [float(i % 2) for i in range(2000)]
    first, second = (split(labels, labels[:400], CLASSIFICATION, 100, 200, search=search) for search in (0, 1))
    assert first.test == second.test
    assert len(first.train) == len(second.train) == 100
    assert set(first.train) != set(second.train)


def test_each_search_sets_other_groups_aside_and_the_latest_rows_are_the_same_for_all():
    labels = [float(i % 2) for i in range(200)]
    groups = SplitKeys(column="author", groups=tuple(str(i // 4) for i in range(200)), times=())
    first, second = (split(labels, labels[:40], CLASSIFICATION, 0, 0, None, groups, search) for search in (0, 1))
    assert set(first.validation) != set(second.validation)
    for each in (first, second):
        assert not {i // 4 for i in each.train} & {i // 4 for i in each.validation}
    times = SplitKeys(column="day", groups=tuple(map(str, range(200))), times=tuple(map(float, range(200))))
    assert split(labels, labels[:40], CLASSIFICATION, 0, 0, None, times, 0) == split(
        labels, labels[:40], CLASSIFICATION, 0, 0, None, times, 1
    )
