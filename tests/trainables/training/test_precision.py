"""bf16 for matrix products: what it changes, and what stays fp32."""

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from search_spaces.language import Recipe
from tests.fixtures.method_settings import SMALL
from tests.fixtures.trials import make_data, make_trial
from trainables.backbone.backbone import Backbone
from trainables.methods import METHODS
from trainables.training.engine import Engine
from trainables.training.evaluation import EvalRequest, EvalRow, row_logits
from trainables.worker.device_worker import DeviceWorker, Job

CPU = torch.device("cpu")
RECIPE = Recipe(epochs=4, patience=9, precision="bf16")


class Casts(TorchDispatchMode):
    """Shapes of the tensors that are cast to a type."""

    def __init__(self, dtype=torch.bfloat16):
        super().__init__()
        self.dtype, self.shapes = dtype, []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        if "_to_copy" in str(function) and out.dtype == self.dtype:
            self.shapes.append(tuple(out.shape))
        return out


def make_engine(model, precision):
    return Engine(Backbone.load(model, CPU, precision))


def train(model, trials, data, precision="bf16"):
    engine = make_engine(model, precision)
    states = [engine.add_trial(trial, data) for trial in trials]
    while engine.residents:
        for state in engine.step():
            if state.done:
                engine.remove_trial(state.trial.id)
    return states


def logits(model, precision):
    engine, trial, data = make_engine(model, precision), make_trial("adapter", r=4), make_data()
    engine.add_trial(trial, data)
    stack, index = engine.find(trial.id)
    request = EvalRequest(stack=stack, index=index, split=data.test)
    with torch.no_grad():
        return row_logits(engine.backbone, [EvalRow(number=0, request=request, examples=np.arange(20), num_tokens=0)])[
            0
        ]


def test_logits_differ_from_fp32_by_no_more_than_bf16_explains(tiny_bert):
    exact, narrow = logits(tiny_bert, "fp32"), logits(tiny_bert, "bf16")
    assert 0 < np.abs(exact - narrow).max() < 0.05 * np.abs(exact).max() + 0.01


def test_frozen_weights_are_cast_once_and_trained_ones_in_every_step(tiny_bert):
    weights = {(32, 32), (64, 32), (32, 64)}
    for method, settings, again in (("adapter", {"r": 4}, 0), ("full", {}, 12)):
        engine = make_engine(tiny_bert, "bf16")
        engine.add_trial(make_trial(method, recipe=RECIPE, **settings), make_data())
        engine.step()
        with Casts() as casts:
            engine.step()
        assert sum(shape in weights for shape in casts.shapes) == again


@pytest.mark.parametrize(("method", "settings"), [("adapter", {"r": 4}), ("full", {})])
def test_parameters_and_moments_stay_fp32_and_learn(method, settings, tiny_bert):
    data = make_data(train=240, test=60)
    engine, trial = make_engine(tiny_bert, "bf16"), make_trial(method, lr=3e-3, recipe=Recipe(epochs=6), **settings)
    state = engine.add_trial(trial, data)
    before = engine.test(trial.id).metrics["accuracy"]
    while not state.done:
        engine.step()
    parameters = engine.find(trial.id)[0].parameters
    assert {parameters.values.dtype, parameters.moments.dtype, state.best.dtype} == {torch.float32}
    assert engine.test(trial.id).metrics["accuracy"] > max(before, 50) + 20


@pytest.mark.parametrize("method", METHODS)
def test_every_method_on_distilbert_trains_in_bf16_as_in_fp32_but_for_rounding(method, tiny_model):
    """One epoch: later ones differ by more, since Adam follows the sign of gradients that are nearly zero."""
    model, data, found = tiny_model("distilbert"), make_data(train=24), {}
    epochs = METHODS[method].phases
    for precision in ("fp32", "bf16"):
        engine = make_engine(model, precision)
        trial = make_trial(method, recipe=Recipe(epochs=epochs, precision=precision), **SMALL[method])
        state = engine.add_trial(trial, data)
        while not state.done:
            engine.step()
        found[precision] = state
        assert engine.find(trial.id)[0].parameters.values.dtype == torch.float32
    exact, narrow = (found[precision].progress[0].loss for precision in ("fp32", "bf16"))
    assert narrow == pytest.approx(exact, rel=0.02)
    assert not torch.equal(found["bf16"].best, found["fp32"].best)


def test_only_what_goes_to_the_residual_stream_is_widened(tiny_bert):
    """Queries, keys, values and the feed-forward hidden states stay bf16: the next product would round them again."""
    engine = make_engine(tiny_bert, "bf16")
    engine.add_trial(make_trial("linear_probe", recipe=RECIPE), make_data())
    with Casts(torch.float32) as casts:
        engine.step()
    wide = [shape for shape in casts.shapes if shape[-1] == 64]
    assert not wide, "the hidden states of the feed-forward part are 64 wide, and nothing else is"


def test_the_precision_of_training_that_moved_is_in_the_ids():
    assert make_trial(recipe=Recipe(epochs=3)).semantics == 3
    assert make_trial(recipe=RECIPE).semantics == 4


def test_stacked_trials_change_a_curve_by_no_more_than_rounding(tiny_bert):
    data = make_data()
    trials = [make_trial("adapter", r=4, seed=s, recipe=RECIPE) for s in (1, 2, 3)]
    for trial, state in zip(trials, train(tiny_bert, trials, data), strict=True):
        alone = train(tiny_bert, [trial], data)[0]
        assert [p.loss for p in state.progress] == pytest.approx([p.loss for p in alone.progress], rel=0.01)


def test_the_precision_is_part_of_a_trials_identity():
    assert make_trial(recipe=RECIPE).id != make_trial(recipe=Recipe(epochs=4, patience=9)).id


def test_residents_of_another_precision_get_another_backbone(tiny_bert, tmp_path):
    worker = DeviceWorker(CPU)
    backbones = {
        precision: worker._engine(
            Job(
                trial=make_trial(recipe=Recipe(precision=precision)),
                source=str(tiny_bert.path),
                data=tmp_path,
                folder=tmp_path,
            ),
            tiny_bert,
        ).backbone
        for precision in ("fp32", "bf16")
    }
    assert {p: b.precision for p, b in backbones.items()} == {"fp32": "fp32", "bf16": "bf16"}
    assert backbones["fp32"] is not backbones["bf16"]
