"""The simulation of searches' luck: identical methods are called different with one search, and hardly with three."""

from dataclasses import replace

import numpy as np

from benchmarks.search_luck import FLAT, Setting, draw, simulate

NOISY = Setting(searches=1, seeds=5, validation=2.4, seed=1.0)


def test_one_search_finds_differences_that_do_not_exist_and_three_do_not():
    """150 columns: a standard error of 4 points at 35 %, 2 at 5 %."""
    assert simulate(NOISY, 150).false > 20
    repeated = simulate(replace(NOISY, searches=3, seeds=3), 150)
    assert repeated.false < 10
    assert repeated.covered > 88


def test_all_methods_have_the_same_landscape_and_searches_are_drawn_apart():
    scores, true = draw(replace(NOISY, searches=4), np.random.default_rng(0))
    assert scores.shape == (4, 4, 5)
    assert set(true.reshape(-1)) <= set(NOISY.landscape)
    assert len(set(true.reshape(-1))) > 1
    assert not draw(replace(NOISY, landscape=tuple(FLAT)), np.random.default_rng(0))[1].any()
