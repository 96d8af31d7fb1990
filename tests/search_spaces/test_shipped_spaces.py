"""The spaces that come with the project: each is a correct plan, and the protocols are those of their papers."""

from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.planning.preview import plan_text
from orchestrator.planning.sweep_manifest import folder_name
from search_spaces.loading import load, names
from tests.fixtures.run_options import make_options
from tests.fixtures.spaces import plan_of
from trainables.backbone.models import KNOWN_CONFIGS, shape_of
from trainables.methods import METHODS

VARIANTS = ("norm_input", "batch_norm", "tanh", "attention_only", "parallel", "multiplicative")
FIRST_RELEASE = frozenset(
    [
        "full",
        "top_layers",
        "layer_norm",
        "linear_probe",
        "adapter",
        "houlsby_variant",
        "pfeiffer",
        "parallel",
        "adapter_drop",
        "adapter_drop_robust",
        "sparse_adapter",
        "madapter",
        "compacter",
        "compacter_pp",
        "lora",
        "rslora",
        "dora",
        "pissa",
        "vera",
        "adalora",
        "dylora",
        "ia3",
        "bitfit",
        "bitfit_small",
        "prefix",
        "prefix_mlp",
        "p_tuning_v2",
        "prompt_tuning",
        "adaption_prompt",
        "threshold_mask",
        "fish_mask",
        "lt_sft",
        "diff_pruning",
        "child_tuning_f",
        "child_tuning_d",
        "mam",
        "unipelt",
        "propetl",
    ]
)


@pytest.fixture
def csv_tasks(tmp_path, monkeypatch):
    """A working directory with ./tasks, where the space of users' own tasks looks."""
    lines = ["text,label", *(f"text {i},{'ab'[i % 2]}" for i in range(60))]
    (tmp_path / "tasks").mkdir()
    for name in ("queues.csv", "queues.test.csv", "spam.csv"):
        (tmp_path / "tasks" / name).write_text("\n".join(lines))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "tasks"


@pytest.mark.parametrize("name", names())
def test_every_shipped_space_is_a_correct_plan(name, csv_tasks, tmp_path):
    plan = plan_of(load(name, METHODS))
    budget = plan.space.budget
    tries = sum(plan.num_configurations(plan.space.entry(c.method)) for c in plan.space.cells)
    assert plan.trials == tries * budget.search_seeds + len(plan.space.cells) * budget.final_seeds
    text = plan_text(plan, make_options(tmp_path))
    assert all(entry.label in text for entry in plan.space.methods)
    reduced = plan_of(load(name, METHODS), models=["roberta-base"], num_configurations=1, final_seeds=1, epochs=2)
    assert reduced.trials == len(reduced.space.cells) * (budget.search_seeds + 1)


def test_every_csv_file_of_the_folder_is_a_task(csv_tasks):
    queues, spam = load("text_classification").tasks
    assert (queues.name, Path(queues.train), Path(queues.test)) == (
        "queues",
        csv_tasks / "queues.csv",
        csv_tasks / "queues.test.csv",
    )
    assert (spam.name, spam.test) == ("spam", None)


def test_without_own_tasks_the_space_for_them_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        ValueError, match=r"tasks holds no NAME\.csv with the columns 'text' and 'label'; .* protocol\("
    ):
        load("text_classification")


def test_a_protocol_runs_on_a_users_own_files(csv_tasks, tmp_path):
    (tmp_path / "mine.py").write_text(
        "from search_spaces.language import FileTask\n"
        "from search_spaces.spaces.text_classification import protocol\n"
        "space = protocol([FileTask(name='mine', train='tasks/spam.csv', text='text', label='label'), 'agreement'])\n"
    )
    plan = plan_of(load(str(tmp_path / "mine.py")))
    assert list(plan.tasks) == ["mine", "agreement"]
    assert {plan.num_configurations(entry) for entry in plan.space.methods} == {12}


# What the papers' protocols fix, as the reference cards of the methods have it.
PROTOCOLS = {
    "madapter_tables": {
        "lr": (1e-5, 5e-5, 1e-4, 5e-4),
        "batch_size": (8, 16),
        "trials": 8,
        "seeds": (3, 3),
        "epochs": 20,
    },
    "madapter_depth": {
        "lr": (1e-5, 5e-5, 1e-4, 5e-4),
        "batch_size": (8, 16),
        "trials": 8,
        "seeds": (3, 3),
        "epochs": 20,
    },
    "houlsby_glue": {"lr": (3e-5, 3e-4, 3e-3), "epochs": (3, 20), "trials": 18, "seeds": (1, 5)},
    "text_classification": {"lr": (1e-5, 3e-5, 1e-4, 3e-3), "epochs": (20, 50, 100), "trials": 12, "seeds": (1, 3)},
}


@pytest.mark.parametrize("name", PROTOCOLS)
def test_the_protocols_are_the_papers(name, csv_tasks):
    space, expected = load(name), PROTOCOLS[name]
    assert (space.budget.trials, space.budget.search_seeds, space.budget.final_seeds) == (
        expected["trials"],
        *expected["seeds"],
    )
    assert space.budget.grace >= space.recipe.epochs, "no paper stops trials early by comparing them"
    epochs = space.search.get("epochs")
    assert (epochs.values if epochs else space.recipe.epochs) == expected["epochs"]
    for key in ("lr", "batch_size"):
        if key in expected:
            assert space.search[key].values == expected[key]


def test_the_grid_of_the_papers_tables_is_tried_as_a_whole():
    plan = plan_of(load("madapter_tables"))
    assert {plan.num_configurations(entry) for entry in plan.space.methods} == {8}
    # 4 methods x 2 models x 4 tasks x 24 runs are the paper's 768; a control and finals come on top.
    assert plan.trials == 768 * 5 // 4 + 2 * 4 * 5 * 3


def test_the_space_of_all_methods_is_made_from_their_names():
    labels = [entry.label for entry in load("glue_all_methods", ["full", "houlsby_variant", "a_new_method"]).methods]
    assert labels == ["full", *(f"houlsby_{v}" for v in VARIANTS), "a_new_method"]


def test_the_space_of_all_methods_is_the_sweep_that_it_was():
    """With the methods of the first release: a sweep that was begun with it is continued."""
    first_release = [name for name in METHODS if name in FIRST_RELEASE]
    assert folder_name(load("glue_all_methods", first_release)) == "glue_all_methods-19d0e4b0"


def test_the_space_of_small_budgets_keeps_its_promise():
    bert = shape_of(KNOWN_CONFIGS["bert-base-uncased"])
    space = replace(load("glue_small_budget"), tasks=("agreement",))
    plan = plan_of(space)
    for entry in plan.space.methods[1:]:
        most = plan.counts(entry, bert)[1]
        assert most.module < most.total / 1000
