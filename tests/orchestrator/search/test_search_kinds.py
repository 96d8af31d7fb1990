"""Random search and whole grids: what is drawn, what is refused, what runs at once, what a kill changes."""

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.execution.concurrency import most_search_trials
from orchestrator.planning.plan import make_plan
from orchestrator.planning.preview import plan_text
from orchestrator.planning.sweep_manifest import folder_name, space_json
from orchestrator.run_options import RunOptions
from orchestrator.search.sampler import open_study
from search_spaces.language import Budget, Cell, Recipe, Space, choice, log_uniform, method, own_search
from tests.fixtures.fakes import drive, drive_killed, make_space, open_sweep, result

WIDE = {"lr": log_uniform(1e-5, 1e-1), "r": choice(8, 16, 32)}
GRID = {"lr": choice(1e-5, 1e-4, 1e-3), "r": choice(8, 16)}


def study_of(kind, dimensions, trials, seed=0, name="adapter"):
    return open_study(dimensions, Budget(trials=trials, search=kind), seed, Cell(model="m", task="t", method=name))


def asked(study):
    return [study.ask() for _ in range(study.limit)]


def random_space(**budget):
    return make_space(
        tasks=("t",),
        methods=(method("adapter", r=choice(8, 16, 32), lr=log_uniform(1e-5, 1e-2)),),
        budget=Budget(**{"trials": 7, "final_seeds": 2, "search": "random", **budget}),
    )


def test_random_draws_are_independent_and_uniform_on_a_dimension_s_own_scale():
    points = asked(study_of("random", WIDE, 4000))
    depth = np.log10([p["lr"] for p in points])
    assert np.histogram(depth, bins=4, range=(-5, -1))[0] == pytest.approx([1000] * 4, abs=120)
    for r in (8, 16, 32):
        share = [d for d, p in zip(depth, points, strict=True) if p["r"] == r]
        assert len(share) == pytest.approx(4000 / 3, abs=130)
        assert np.mean(share) == pytest.approx(-3, abs=0.1)
    assert abs(np.corrcoef(depth[:-1], depth[1:])[0, 1]) < 0.06


def test_a_random_draw_depends_on_nothing_but_its_number_and_the_seed():
    points = asked(study_of("random", WIDE, 12))
    continued = study_of("random", WIDE, 40)
    for point in points[:5]:
        continued.replay(point)
    assert [continued.ask() for _ in range(7)] == points[5:]
    assert asked(study_of("random", WIDE, 12, seed=1)) != points


def test_methods_on_one_task_draw_the_same_learning_rates():
    one, other = asked(study_of("random", WIDE, 6)), asked(study_of("random", {"lr": WIDE["lr"]}, 6, name="full"))
    assert [p["lr"] for p in one] == [p["lr"] for p in other]


@pytest.mark.parametrize("kind", ["random", "grid"])
def test_a_finite_grid_is_drawn_without_repeats(kind):
    study = study_of(kind, GRID, 50)
    assert study.limit == 6
    points = asked(study)
    assert len({tuple(p.items()) for p in points}) == 6
    assert points != asked(study_of(kind, GRID, 50, seed=1))


def test_what_depends_on_no_other_trial_waits_for_none(tmp_path):
    free, judged, tpe = random_space(grace=8), random_space(grace=2), random_space(search="tpe", grace=8)
    startable = [open_sweep(space, tmp_path / str(i)).startable for i, space in enumerate((free, judged, tpe))]
    assert startable == [7, 2, 2]
    assert [most_search_trials(space) for space in (free, judged, tpe)] == [7, 2, 2]


@settings(max_examples=15, deadline=None)
@given(
    kind=st.sampled_from(["random", "grid"]),
    grace=st.sampled_from([1, 2, 8]),
    workers=st.integers(1, 20),
    kills=st.lists(st.integers(1, 60), max_size=3),
)
def test_the_result_depends_neither_on_timing_nor_on_kills(kind, grace, workers, kills):
    space = make_space(
        tasks=("t",),
        methods=(method("adapter", r=choice(8, 16, 32), lr=choice(1e-4, 1e-3)),),
        search={"batch_size": choice(8)},
        budget=Budget(trials=6, final_seeds=2, grace=grace, search=kind),
    )
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        reference = drive(space, root / "calm")
        killed = drive_killed(space, root / "killed", kills, workers=workers)
        assert result(killed) == result(reference)


def space_of(*rows, **budget):
    return Space(
        models=("minilm",),
        tasks=("agreement",),
        methods=rows,
        search={"batch_size": choice(16)},
        recipe=Recipe(epochs=3),
        budget=Budget(search="grid", **budget),
    )


def test_a_grid_that_is_none_or_larger_than_the_budget_is_refused_with_the_way_out():
    with pytest.raises(ValueError, match=r"'lora': lr is a range, .* choice\(\.\.\.\), or take Budget\(search='tpe'\)"):
        space_of(method("lora", lr=log_uniform(1e-4, 1e-2)))
    with pytest.raises(ValueError, match=r"'lora': its grid has 6 configurations, more than Budget\(trials=5\)"):
        space_of(method("lora", **GRID), trials=5)
    with pytest.raises(ValueError, match="budget: search = 'bayes': must be 'tpe', 'random', 'grid' or 'multi'"):
        Budget(search="bayes")


def test_a_row_with_its_method_s_own_search_is_checked_once_that_is_known():
    space = space_of(own_search("lora"))
    with pytest.raises(ValueError, match="'lora': its grid has 12 configurations"):
        make_plan(space, RunOptions())


def test_the_kind_of_search_is_in_the_plan_and_in_the_sweep_s_name_unless_it_is_the_usual_one():
    whole = space_of(method("lora", **GRID), trials=8, grace=3)
    text = plan_text(make_plan(whole, RunOptions()), RunOptions())
    assert "at most 8 tried per cell, the whole grid, its winner" in text
    assert "at most 8 trials of a cell at once" in text
    usual = Space(**{**vars(whole), "budget": Budget(trials=8, grace=3)})
    assert "search" not in space_json(usual)["budget"]
    assert folder_name(usual) != folder_name(whole)
