"""Limits of the numbers of examples, for all tasks or for each: what a trial, a plan and the names of sweeps make of them."""

from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace

import pytest

from orchestrator.planning.preview import plan_text
from orchestrator.planning.sweep_inputs import SweepInputs, load_tasks
from orchestrator.planning.sweep_manifest import folder_name, space_json
from search_spaces.language import Cell, FileTask, Recipe, method
from tests.fixtures.run_options import make_options
from tests.fixtures.spaces import make_space, plan_of

EACH = Recipe(epochs=8, train_examples={"entailment": 60, "agreement": 400}, test_examples={"agreement": 100})


def trial(space, task):
    known = SimpleNamespace(
        fingerprint="f" * 16, family="bert", of_search=lambda number: SimpleNamespace(fingerprint="e" * 16)
    )
    inputs = SweepInputs(space=space, models=defaultdict(lambda: known), tasks=defaultdict(lambda: known), tokens={})
    cell = Cell(model="bert-base-uncased", task=task, method="full")
    return inputs.trial(cell, {"lr": 1e-3, "batch_size": 8}, 1, "search")


def test_one_number_for_all_tasks_leaves_ids_of_trials_and_names_of_sweeps_as_they_were():
    space = make_space(recipe=Recipe(epochs=3, train_examples=256, test_examples=400))
    assert folder_name(space) == "made-up-e1b0b896"
    assert trial(space, "agreement").id == "0d5d8441cdc78e0e"


def test_a_trial_has_the_limits_of_its_task_and_is_the_one_of_a_sweep_with_that_number_for_all():
    space = make_space(recipe=EACH)
    for task, train, test in (("agreement", 400, 100), ("entailment", 60, 0)):
        found = trial(space, task)
        assert (found.recipe.train_examples, found.recipe.test_examples) == (train, test)
        alone = make_space(recipe=Recipe(epochs=8, train_examples=train, test_examples=test))
        assert found.id == trial(alone, task).id


def test_each_task_is_cut_to_its_own_limits():
    plan = plan_of(make_space(recipe=EACH))
    found = load_tasks(plan, make_options(Path(".")))
    sizes = {name: (len(task.train), len(task.validation), len(task.test)) for name, task in found.items()}
    assert sizes == {"agreement": (400, 50, 100), "entailment": (60, 50, 600)}


def test_the_plan_tells_the_limits_of_each_task(tmp_path):
    text = plan_text(plan_of(make_space(recipe=EACH)), make_options(tmp_path))
    assert "Agreement (accuracy, test: generated, at most 400 train and 100 test examples)" in text
    assert "Entailment (accuracy, test: generated, at most 60 train examples)" in text
    assert "at most 0" not in text


def test_the_order_of_the_tasks_in_a_limit_does_not_change_the_sweep():
    other = Recipe(epochs=8, train_examples={"agreement": 400, "entailment": 60}, test_examples={"agreement": 100})
    assert folder_name(make_space(recipe=other)) == folder_name(make_space(recipe=EACH))
    assert space_json(make_space(recipe=EACH))["recipe"]["train_examples"] == {"agreement": 400, "entailment": 60}


def test_fewer_tasks_leave_the_limits_of_the_others_out():
    plan = plan_of(make_space(recipe=EACH), tasks=["entailment"])
    assert (plan.space.recipe.train_examples, plan.space.recipe.test_examples) == ({"entailment": 60}, 0)
    assert plan.reductions == ("--tasks entailment, 1 of 2",)


def test_a_task_of_the_users_own_has_a_limit_by_its_name():
    mine = FileTask(name="mine", train="a.csv", text="t", label="l")
    space = make_space(tasks=("agreement", mine), recipe=Recipe(train_examples={"mine": 40}))
    assert [trial(space, task).recipe.train_examples for task in ("agreement", "mine")] == [0, 40]


@pytest.mark.parametrize(
    ("limit", "message"),
    [
        (5, r"recipe: train_examples = 5: must be 0 \(all\) or at least 20"),
        (True, r"train_examples = True: must be a whole number, or a dict"),
        ("all", r"train_examples = 'all': must be a whole number, or a dict"),
        ({"agreement": 19}, r"train_examples\['agreement'\] = 19: must be 0 \(all\) or at least 20"),
        ({"agreement": {"entailment": 40}}, r"train_examples\['agreement'\] = \{'entailment': 40\}: a task's name and"),
        ({3: 40}, r"train_examples\[3\] = 40: a task's name and a whole number are needed"),
        ({"agrement": 40}, r"names 'agrement', which is none of the space's tasks agreement, entailment"),
    ],
)
def test_limits_that_cannot_be_are_refused(limit, message):
    with pytest.raises(ValueError, match=message):
        make_space(recipe=Recipe(train_examples=limit), methods=(method("full"),))
