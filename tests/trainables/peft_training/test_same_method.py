"""The same method in both engines: trials trained by peft's own modules, and by our formulas, from the same initial values."""

import peft
import pytest
import torch

from orchestrator.export import peft_layout
from search_spaces.language import Recipe
from search_spaces.peft_rows import peft_row
from tests.fixtures.encoders import write_tiny
from tests.fixtures.trials import make_data, make_trial
from trainables.backbone.backbone import Backbone
from trainables.backbone.models import resolve
from trainables.peft_training.networks import values_of
from trainables.peft_training.peft_engine import PeftEngine
from trainables.training.engine import Engine

CPU = torch.device("cpu")
# 20 steps, the mean loss of each two of which is compared; the last mini-batch of an epoch is smaller.
RECIPE = Recipe(epochs=10, patience=10, dropout=0.0)
# Methods of ours, their settings, and fields of peft's configuration that the export does not write, because it does not train.
SAME = {
    "lora": ({"r": 4, "targets": "all"}, {}),
    "rslora": ({"r": 4}, {}),
    "dora": ({"r": 4}, {}),
    "pissa": ({"r": 4}, {"r": 4, "lora_alpha": 4, "init_lora_weights": "pissa"}),
    "vera": ({"r": 16}, {}),
    "ia3": ({}, {}),
    "layer_norm": ({}, {}),
    "loha": ({"r": 2, "targets": "all"}, {}),
    "lokr": ({"r": 2}, {}),
    "miss": ({"r": 4}, {}),
    "oft": ({"block_size": 8}, {}),
    "hra": ({"r": 4}, {}),
    "road": ({"group_size": 8}, {}),
    "adalora": (
        {"r": 6, "target": 2, "tinit": 0.15, "tfinal": 0.5},
        {"tinit": 3, "tfinal": 10, "total_step": 20, "deltaT": 1, "orth_reg_weight": 0.5},
    ),
}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return {family: resolve(str(write_tiny(folder / family, family))) for family in ("bert", "roberta", "llama")}


def row_of(name, layout, family, fields):
    """The row of peft that is our method: the configuration of its export, without what the sweep decides."""
    written = peft_layout.config(name, layout, family, "", ())
    ours = ("task_type", "base_model_name_or_path", "inference_mode", "modules_to_save")
    return peft_row({k: v for k, v in written.items() if k not in ours} | fields).settings


def both(model, name, outputs=2, lr=1e-2, recipe=RECIPE):
    """(our engine, peft's engine, their trials), with equal initial values."""
    own, fields = SAME[name]
    data, backbone = make_data(outputs), Backbone.load(model, CPU)
    ours, trial = Engine(backbone), make_trial(name, recipe=recipe, batch_size=24, lr=lr, **own)
    ours.add_trial(trial, data)
    stack, index = ours.find(trial.id)
    layout = stack.parameters.layout
    row = row_of(name, layout, backbone.family, fields)
    theirs, other = PeftEngine(model, CPU), make_trial("peft", recipe=recipe, batch_size=24, lr=lr, **row)
    theirs.add_trial(other, data)
    entries = {e.name: stack.parameters.values[index, e.start : e.stop].view(e.shape) for e in layout.entries}
    if name == "pissa":  # its export has twice the rank; both engines compute the same start from the weights
        entries = {n: t for n, t in entries.items() if n.startswith("head.")}
        layout = type(
            "Layout", (), {"entries": [e for e in layout.entries if e.name in entries], "shape": layout.shape}
        )
    network = theirs._trial.network
    found = peft.set_peft_model_state_dict(network, peft_layout.to_peft(name, entries, layout, backbone))
    assert not found.unexpected_keys, found.unexpected_keys
    theirs._trial.state.best = values_of(network)
    return ours, theirs, trial, other


def train(engine, trial_id):
    states = []
    while not (states and states[-1].done):
        states = engine.step() or states
    return [p.loss for p in states[-1].progress], engine.test(trial_id), states[-1]


@pytest.mark.parametrize("family", ["bert", "llama"])
@pytest.mark.parametrize("name", sorted(SAME))
def test_a_method_in_both_engines_has_the_same_losses_and_predictions(models, name, family):
    ours, theirs, trial, other = both(models[family], name)
    losses, result, state = train(ours, trial.id)
    their_losses, their_result, their_state = train(theirs, other.id)
    assert losses == pytest.approx(their_losses, abs=1e-5)
    assert max(losses) - min(losses) > 1e-2  # they learn
    assert result == their_result
    assert [p.score for p in state.progress] == [p.score for p in their_state.progress]
    assert [p.best_epoch for p in state.progress] == [p.best_epoch for p in their_state.progress]


def test_a_regression_in_both_engines_has_the_same_losses(models):
    ours, theirs, trial, other = both(models["roberta"], "lora", outputs=1, lr=1e-3)
    assert train(ours, trial.id)[0] == pytest.approx(train(theirs, other.id)[0], abs=1e-5)


def test_the_comparison_sees_another_moving_average(models):
    ours, theirs, trial, other = both(models["bert"], "lora")
    for group in theirs._trial.optimizer.param_groups:
        group["betas"] = (0.8, 0.999)
    assert train(ours, trial.id)[0] != pytest.approx(train(theirs, other.id)[0], abs=1e-5)
