"""A plan: what the command line makes of a space, and how many trials that is."""

import json
from collections import defaultdict
from dataclasses import replace
from types import SimpleNamespace

import pytest

from orchestrator.planning.plan import make_plan
from orchestrator.planning.preview import list_text, plan_text
from orchestrator.planning.space_options import apply
from orchestrator.planning.sweep_inputs import SweepInputs
from orchestrator.run_options import RunOptions
from search_spaces.language import Recipe, ablated, choice, log_uniform, method, own_search
from tests.fixtures.run_options import make_options
from tests.fixtures.spaces import make_space, plan_of
from trainables.backbone import models
from trainables.backbone.models import KNOWN_CONFIGS
from trainables.methods import METHODS

# The published sizes of the two encoders with their poolers.
BERT, ROBERTA = 109_482_240, 124_645_632


def test_without_options_the_space_stays_as_it_is_and_is_not_called_reduced():
    plan = plan_of(make_space())
    assert (plan.space, plan.reductions) == (make_space(), ())


def test_subsets_keep_only_what_is_named_and_are_called_reductions():
    plan = plan_of(make_space(), tasks=["entailment"], methods=["adapter"])
    assert [str(cell) for cell in plan.space.cells] == [
        "bert-base-uncased/entailment/adapter",
        "roberta-base/entailment/adapter",
    ]
    assert plan.reductions == ("--tasks entailment, 1 of 2", "--methods adapter, 1 of 2")


def test_methods_are_chosen_by_label():
    space = make_space(methods=(method("adapter", label="narrow", r=8), method("adapter", label="wide", r=64)))
    assert [entry.settings for entry in plan_of(space, methods=["wide"]).space.methods] == [{"r": 64}]
    with pytest.raises(ValueError, match=r"method 'adapter' is not in this space: .*known: narrow, wide"):
        plan_of(space, methods=["adapter"])


def test_models_may_be_others_than_the_spaces():
    plan = plan_of(make_space(models=("roberta-base",)), models=["bert-base-uncased"])
    assert plan.space.models == ("bert-base-uncased",)
    assert plan.reductions == ("--models bert-base-uncased instead of roberta-base",)


def test_naming_everything_in_any_order_is_the_whole_space():
    space, reductions = apply(
        make_space(),
        RunOptions(
            models=["roberta-base", "bert-base-uncased"],
            tasks=["entailment", "agreement"],
            methods=["adapter", "full"],
            num_configurations=6,
            final_seeds=2,
            epochs=8,
        ),
    )
    assert (space, reductions) == (make_space(), [])


def test_smaller_budgets_replace_the_spaces_and_are_called_reductions():
    plan = plan_of(make_space(), num_configurations=3, final_seeds=1, epochs=2)
    assert (plan.space.budget.trials, plan.space.budget.final_seeds, plan.space.recipe.epochs) == (3, 1, 2)
    assert plan.reductions == ("--trials 3 instead of 6", "--seeds 1 instead of 2", "--epochs 2 instead of 8")
    untouched = replace(plan.space, budget=make_space().budget, recipe=make_space().recipe)
    assert untouched == make_space()


def test_a_small_finite_cell_is_tried_once_through_and_a_wide_one_up_to_the_budget():
    space = make_space(
        methods=(
            method("full"),  # 2 x 2 points
            method("adapter", r=choice(32, 64)),  # 2 x 2 x 2
            method("madapter", r=8, lr=log_uniform(1e-5, 1e-3)),
            method("sparse_adapter", r=8, lr=1e-4, batch_size=8),  # one point
        )
    )
    plan = plan_of(space)
    assert [plan.num_configurations(entry) for entry in space.methods] == [4, 6, 6, 1]
    assert plan.trials == 4 * (4 + 6 + 6 + 1) + 4 * 4 * 2


def test_counts_range_over_the_searched_settings():
    plan = plan_of(make_space())
    low, high = plan.counts(plan.space.entry("adapter"), plan.shapes["bert-base-uncased"])

    def trained(r: int) -> int:
        adapters = 24 * (2 * 768 * r + r + 768)
        return adapters + 25 * 2 * 768 + 2 * 768 + 2  # and LayerNorms, and a head of two classes

    assert (low.trained, high.trained) == (trained(32), trained(64)) == (1_238_786, 2_419_202)
    assert (low.total, plan.shapes["roberta-base"].total) == (BERT, ROBERTA)


def test_dimensions_that_all_methods_share_are_counted_and_checked_like_their_own():
    search = {"lr": 1e-3, "batch_size": 8, "r": choice(32, 64)}
    own, shared = (
        plan_of(make_space(methods=(entry,), search=dimensions))
        for entry, dimensions in (
            (method("adapter", r=choice(32, 64)), {"lr": 1e-3, "batch_size": 8}),
            (method("adapter"), search),
        )
    )
    shape = own.shapes["bert-base-uncased"]
    assert own.counts(own.space.methods[0], shape) == shared.counts(shared.space.methods[0], shape)
    with pytest.raises(ValueError, match="'r' is no setting of 'full'"):
        plan_of(make_space(search=search))


def test_settings_are_checked_against_every_model():
    with pytest.raises(ValueError, match=r"method 'adapter' on roberta-base: r = 800: .*between 1 and 768"):
        plan_of(make_space(models=("roberta-base",), methods=(method("adapter", r=choice(8, 800)),)))


def test_the_text_of_a_plan_names_cells_trials_and_what_is_changed(tmp_path):
    text = plan_text(plan_of(make_space(), num_configurations=3), make_options(tmp_path))
    assert "2 models x 2 tasks x 2 methods = 8 cells" in text
    assert f"{8 * 3 + 8 * 2} trials" in text
    assert "BERT-base 1,238,786 to 2,419,202" in text
    assert "changed from the space as written: --trials 3 instead of 6" in text
    assert "nothing of it has run yet" in text


def test_a_plan_foretells_the_evaluations_of_rows_that_lose_their_layers(tmp_path):
    space = make_space(methods=(method("full"), ablated(method("adapter", r=32))))
    told = "besides  79 more evaluations of each final of adapter, without spans of its layers"  # 12 * 13 / 2 and the whole
    assert told in plan_text(plan_of(space), make_options(tmp_path))
    assert "besides" not in plan_text(plan_of(make_space()), make_options(tmp_path))


def test_only_the_finals_of_an_ablated_row_are_ablated():
    plan = plan_of(make_space(methods=(method("full"), ablated(method("adapter", r=32)))), methods=["adapter"])
    known = SimpleNamespace(fingerprint="f", family="bert", of_search=lambda number: known)
    inputs = SweepInputs(
        space=plan.space, models=defaultdict(lambda: known), tasks=defaultdict(lambda: known), tokens={}
    )
    found = [
        inputs.trial(plan.space.cells[0], {"lr": 1e-3, "batch_size": 8}, 1, phase) for phase in ("search", "final")
    ]
    assert [trial.ablated for trial in found] == [False, True]


def test_a_method_brings_its_own_search_unless_the_space_says_otherwise(tmp_path):
    space = make_space(
        methods=[own_search("adapter", r=8), own_search("full", lr=1e-5)], search={"batch_size": choice(8)}
    )
    plan = make_plan(space, RunOptions())
    adapter, full = plan.space.methods
    assert plan.space.dimensions_of(adapter) == {"lr": METHODS["adapter"].search["lr"], "batch_size": choice(8)}
    assert plan.space.dimensions_of(full) == {"batch_size": choice(8)}


def test_every_method_recommends_four_learning_rates():
    for kind in METHODS.values():
        assert len(kind.search["lr"].values) == 4


def test_the_list_of_methods_tells_everything_about_each():
    text = list_text("methods")
    for name, kind in METHODS.items():
        line = next(line for line in text.split("\n") if line.split()[:1] == [name])
        assert all(part in line for part in (kind.family, kind.paper, "shared" if kind.shares_backbone else "its own"))
    assert "2,419,202 (2.21 %)" in text


def test_searched_epochs_lie_within_the_recipe_and_give_way_to_the_command_line():
    search = {"lr": 1e-4, "batch_size": 8, "epochs": choice(3, 8)}
    space = make_space(search=search, methods=(method("full"), method("adapter", r=8, epochs=5)))
    assert [plan_of(space).num_configurations(entry) for entry in space.methods] == [2, 1]
    shorter = plan_of(space, epochs=2)
    assert all("epochs" not in shorter.space.values_of(entry) for entry in shorter.space.methods)
    assert (shorter.space.recipe.epochs, shorter.reductions) == (2, ("--epochs 2 instead of 8",))
    with pytest.raises(ValueError, match=r"epochs = 9: must be whole numbers between 1 and 8"):
        make_space(search={**search, "epochs": choice(3, 9)})
    with pytest.raises(ValueError, match=r"lt_sft.*epochs = 1: must be at least 2"):
        plan_of(make_space(search={**search, "epochs": choice(1, 8)}, methods=(method("lt_sft"),)))


@pytest.fixture
def six_layers(tmp_path, monkeypatch):
    """A folder with the config of an encoder of six layers. Its weights, which a plan checks too, would be 270 MB."""
    monkeypatch.setattr(models, "check", lambda name, max_length: models.peek(name))
    config = {**KNOWN_CONFIGS["bert-base-uncased"], "num_hidden_layers": 6}
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return str(tmp_path)


def test_other_models_leave_out_what_they_cannot_have_and_say_so(six_layers):
    rows = (method("full"), *(method("top_layers", label=f"top_{k}", k=k) for k in (2, 7, 12)))
    space = make_space(
        models=("bert-base-uncased",), methods=(*rows, method("top_layers", label="top", k=choice(1, 6, 7)))
    )
    plan = plan_of(space, models=[six_layers])
    assert [entry.label for entry in plan.space.methods] == ["full", "top_2", "top"]
    assert plan.space.entry("top").settings["k"] == choice(1, 6)
    assert plan.reductions[1:] == (
        f"on {six_layers}: left out top_7, top_12: their settings are not possible with these models",
        f"on {six_layers}: top with k in 1, 6 only",
    )
    assert plan_of(space).space == space
    assert plan_of(plan.space).space == plan.space


def test_what_is_asked_for_by_name_or_is_wrong_everywhere_is_refused_not_left_out(six_layers):
    space = make_space(models=("bert-base-uncased",), methods=(method("full"), method("top_layers", k=7)))
    with pytest.raises(ValueError, match=r"'top_layers' on .*: k = 7: .*between 1 and 6"):
        plan_of(space, models=[six_layers], methods=["top_layers"])
    for wrong in (method("top_layers", k=13), method("top_layers", k=choice(13, 14)), method("adapter", r=8, n=1)):
        with pytest.raises(ValueError, match=rf"method '{wrong.label}' on"):
            plan_of(make_space(methods=(method("full"), wrong)), models=[six_layers])
    with pytest.raises(ValueError, match=r"k = 7"):
        plan_of(make_space(methods=(method("top_layers", k=7),)), models=[six_layers])


def test_a_plan_says_what_the_precision_means_and_how_much_memory_4_bits_save(tmp_path):
    def backbone(**recipe):
        space = make_space(methods=(method("lora", targets="all"),), recipe=Recipe(epochs=8, **recipe))
        text = plan_text(plan_of(space), make_options(tmp_path))
        return [line.strip() for line in text.splitlines() if line.startswith("  backbone ")]

    assert backbone() == []
    assert backbone(precision="bf16") == ["backbone matrix products in bf16"]
    assert backbone(precision="nf4", nf4_block_size=128, nf4_double_quant=False, nf4_compute="fp32") == [
        "backbone frozen linear maps stored in 4 bits (NF4, blocks of 128, no double quantisation), matrix products in fp32; "
        "weights: BERT-base 137 MiB instead of 418 MiB, RoBERTa-base 193 MiB instead of 474 MiB"
    ]
