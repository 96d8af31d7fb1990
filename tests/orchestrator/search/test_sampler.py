"""The search of one cell: deterministic, without repeats, told the truth about stopped and failed trials."""

import numpy as np
import optuna

from orchestrator.search.sampler import open_study
from orchestrator.search.study import even_points
from search_spaces.language import Budget, Cell, choice, log_uniform
from search_spaces.records import Outcome


def done(score):
    return Outcome(state="DONE", reason="epochs", epochs=1, best_epoch=1, best_score=score)


def study_of(dimensions, trials, seed, method="adapter"):
    return open_study(dimensions, Budget(trials=trials), seed, Cell(model="m", task="t", method=method))


DIMENSIONS = {"lr": log_uniform(1e-5, 1e-1), "r": choice(8, 16, 32)}


def search(study, number, score=lambda p: -abs(p["lr"] - 1e-3)):
    asked = []
    for i in range(number):
        asked.append(study.ask())
        study.tell(i, done(score(asked[-1])), {1: score(asked[-1])})
    return asked


def test_the_same_seed_asks_the_same_and_another_seed_does_not():
    one, same, other = (search(study_of(DIMENSIONS, 20, seed), 20) for seed in (1, 1, 2))
    assert one == same
    assert one != other


def test_replaying_a_record_leaves_the_next_proposal_unchanged():
    whole = study_of(DIMENSIONS, 20, 3)
    asked = search(whole, 12)
    resumed = study_of(DIMENSIONS, 20, 3)
    for i, point in enumerate(asked):
        assert resumed.replay(point) == point
        resumed.tell(i, done(-abs(point["lr"] - 1e-3)), {})
    assert resumed.ask() == whole.ask()


def test_a_wide_space_is_searched_by_model_after_the_start_up():
    points = search(study_of({"lr": log_uniform(1e-5, 1e-1)}, 40, 0), 40)
    distances = [abs(p["lr"] - 1e-3) for p in points]
    assert sorted(distances[25:])[7] < sorted(distances[:10])[4]


def test_a_finite_space_larger_than_the_budget_is_never_repeated():
    study = study_of({"r": choice(*range(30))}, 25, 0)
    asked = [study.ask()["r"] for _ in range(25)]
    assert len(set(asked)) == 25


def test_stopped_trials_are_pruned_with_their_last_score_and_failed_ones_failed():
    study = study_of(DIMENSIONS, 10, 0)
    for _ in range(3):
        study.ask()
    study.tell(0, done(5.0), {1: 4.0, 2: 5.0})
    study.tell(1, Outcome(state="STOPPED", reason="asha", epochs=2), {1: 1.0, 2: 2.0})
    study.tell(2, Outcome(state="FAILED", reason="diverged", epochs=1), {})
    trials = study._study.trials
    states = optuna.trial.TrialState
    assert [t.state for t in trials] == [states.COMPLETE, states.PRUNED, states.FAIL]
    assert [t.intermediate_values for t in trials] == [{}, {2: 2.0}, {}]
    assert (trials[0].value, trials[1].value) == (5.0, 2.0)


def test_nothing_to_search_is_one_point():
    study = study_of({}, 5, 0)
    assert study.limit == 1
    assert study.ask() == {}
    study.tell(0, done(1.0), {1: 1.0})


def test_a_small_budget_still_tries_every_learning_rate():
    dimensions = {"lr": choice(1e-5, 5e-5, 1e-4, 5e-4), "batch_size": choice(8, 16), "r": choice(32, 64, 128)}
    for seed in range(5):
        study = study_of(dimensions, 4, seed)
        asked = [study.ask() for _ in range(4)]
        assert {p["lr"] for p in asked} == {1e-5, 5e-5, 1e-4, 5e-4}
        assert sorted(p["batch_size"] for p in asked) == [8, 8, 16, 16]


def test_the_start_covers_a_range_evenly():
    points = even_points({"lr": log_uniform(1e-5, 1e-1)}, 4, 0)
    assert sorted(int(np.floor(np.log10(p["lr"]))) for p in points) == [-5, -4, -3, -2]


GRID = {"lr": choice(1e-5, 5e-5, 1e-4, 5e-4), "batch_size": choice(8, 16)}


def test_methods_begin_with_the_same_learning_rates_whatever_else_is_searched():
    """A wider search, a whole grid and a budget too small for either: none starts with a better draw than another."""
    for seed in range(5):
        wide = study_of({"r": choice(*range(1, 9)), **GRID}, 8, seed, "lora")
        whole, few = study_of(GRID, 8, seed), study_of(GRID, 3, seed, "bitfit")
        for _ in range(3):
            first, *others = [study.ask() for study in (wide, whole, few)]
            assert others == [{name: first[name] for name in GRID}] * 2


def test_after_the_start_methods_go_their_own_ways():
    one, other = (search(study_of(DIMENSIONS, 12, 0, method), 12) for method in ("adapter", "bitfit"))
    assert one[:6] == other[:6]
    assert one[6:] != other[6:]


def test_a_whole_grid_is_tried_once_each():
    for seed in range(5):
        study = study_of(GRID, 8, seed)
        assert len({tuple(study.ask().values()) for _ in range(study.limit)}) == study.limit == 8
