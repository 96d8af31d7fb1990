"""Examples that are longer than the recipe allows are counted in the plan and in the sweep's manifest, and so in the report."""

from __future__ import annotations

from pathlib import Path

from orchestrator.planning.plan import make_plan
from orchestrator.planning.preview import plan_text
from orchestrator.planning.sweep_inputs import load_tasks, prepare_inputs
from search_spaces.language import Budget, FileTask, Recipe, Space, choice, method
from tests.fixtures.encoders import write_tiny
from tests.fixtures.run_options import make_options
from trainables.backbone.models import resolve


def long_texts(folder: Path, words: int) -> Space:
    """200 texts of so many words; in the vocabulary of the tiny encoder each word is one token."""
    model = write_tiny(folder / "model", "bert")
    word = "x"
    rows = [f"{' '.join([word] * words)},{label}" for label in ["good", "bad"] * 100]
    (folder / "train.csv").write_text("\n".join(["text,label", *rows]) + "\n")
    return Space(
        name="mine",
        models=(str(model),),
        tasks=(FileTask(name="tickets", train="train.csv", text="text", label="label"),),
        methods=(method("full"),),
        search={"lr": choice(1e-4), "batch_size": 8},
        recipe=Recipe(epochs=1, max_length=32),
        budget=Budget(trials=1, final_seeds=1),
        folder=folder,
    )


def test_cut_texts_are_counted_in_the_plan_and_for_the_report(tmp_path):
    space, options = long_texts(tmp_path, 300), make_options(tmp_path / "runs")
    plan = make_plan(space, options)
    (line,) = (line for line in plan_text(plan, options).splitlines() if line.startswith("  cut "))
    assert "to 32 tokens, of the examples looked at: tickets on model 200 of 200 (median length 302)" in line
    (model,) = space.models
    notes = prepare_inputs(plan, {model: resolve(model)}, load_tasks(plan, options), tmp_path / "runs").cut_notes()
    assert notes["tickets"] == (
        "examples with more than 32 tokens are cut to that, for model: 162 of 162 (median length 302) in train, "
        "18 of 18 (median length 302) in validation, 20 of 20 (median length 302) in test",
    )


def test_texts_that_fit_are_not_mentioned(tmp_path):
    space, options = long_texts(tmp_path, 30), make_options(tmp_path / "runs")
    plan = make_plan(space, options)
    assert "  cut " not in plan_text(plan, options)
    (model,) = space.models
    inputs = prepare_inputs(plan, {model: resolve(model)}, load_tasks(plan, options), tmp_path / "runs")
    assert inputs.cut_notes() == {}
