"""How many trials share a GPU: as many as use it well, and no more than keep every GPU busy."""

import pytest

from orchestrator.execution.concurrency import MOST, most_search_trials, most_trials, trials_per_device
from search_spaces.language import Budget, Space, choice, method
from search_spaces.loading import load


def make_space(tasks: int = 1, **budget) -> Space:
    return Space(
        name="made-up",
        models=("m",),
        tasks=tuple(f"t{i}" for i in range(tasks)),
        methods=(method("adapter"), method("full")),
        search={"lr": choice(1e-4, 1e-3), "batch_size": 16},
        budget=Budget(**{"trials": 8, "final_seeds": 3, "in_flight": 2, **budget}),
    )


def test_the_readme_s_first_command_keeps_all_its_gpus_busy_from_the_first_minute():
    from trainables.methods import METHODS

    space = load("glue_madapter", METHODS)
    for mean_length in (30.0, 60.0):
        per_device = trials_per_device(space, [mean_length], 8)
        assert most_search_trials(space) / per_device > 7, "Ray fills one GPU before it uses the next"


@pytest.mark.parametrize("gpus", [1, 2, 3, 8, 64])
def test_the_startable_trials_need_every_gpu_or_one_each(gpus):
    space = make_space(tasks=5)
    assert most_search_trials(space) == 20
    per_device = trials_per_device(space, [10.0], gpus)
    assert per_device * gpus >= 20
    assert (per_device - 1) * gpus < 20


def test_a_gpu_gets_no_more_trials_than_fill_its_matrix_products():
    assert trials_per_device(make_space(tasks=50), [100.0], 1) == 7
    assert trials_per_device(make_space(tasks=500), [1.0], 1) == MOST


def test_a_cell_starts_no_more_trials_than_it_has():
    assert most_search_trials(make_space(in_flight=99)) == 2 * 8
    assert most_search_trials(make_space(in_flight=99, search_seeds=2)) == 2 * 16


def test_finals_may_run_at_once_beyond_the_search():
    assert most_trials(make_space()) == 2 * 3
    assert most_trials(make_space(in_flight=8)) == 2 * 8
