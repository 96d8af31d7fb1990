"""Every method on MPNet, ModernBERT and DeBERTa-v3: counted as it trains, alone as beside others, in bf16 as in fp32."""

from dataclasses import replace

import pytest
import torch

from search_spaces.language import Recipe
from tests.fixtures.method_settings import SMALL
from tests.fixtures.trials import make_data, make_trial
from tests.trainables.backbone.test_newer_encoders import NEWER
from tests.trainables.training.test_engine_equality import SHARING, losses, mostly, train
from trainables.backbone.backbone import Backbone
from trainables.methods import METHODS
from trainables.training.engine import Engine
from trainables.training.parameter_counts import build, count

REFUSED = {"deberta-v2": ("unipelt",)}
DATA = make_data(train=12, test=6, low=3, high=20)


def trials_of(methods):
    """Two stacked trials of each method, of different batch sizes."""
    return [
        make_trial(m, seed=seed, lr=3e-3, batch_size=8 // seed, recipe=Recipe(epochs=METHODS[m].phases), **SMALL[m])
        for m in methods
        for seed in (1, 2)
    ]


@pytest.fixture(scope="module")
def together(tiny_model):
    """The states of all sharing methods' trials, trained in one engine, by family and method."""
    found = {}
    for family in NEWER:
        methods = [m for m in SHARING if m not in REFUSED.get(family, ())]
        states = train(tiny_model(family), trials_of(methods), DATA)
        found |= {(family, m): states[2 * i : 2 * i + 2] for i, m in enumerate(methods)}
    return found


@pytest.mark.parametrize(("family", "method"), [(f, m) for f in NEWER for m in METHODS if m not in REFUSED.get(f, ())])
def test_a_method_counts_what_it_trains_and_trains_the_same_beside_all_others(family, method, together, tiny_model):
    model = tiny_model(family)
    for number, trial in enumerate(trials_of([method])[: 2 if method in SHARING else 1]):
        engine = Engine(Backbone.load(model, torch.device("cpu")))
        before = {n: p.detach().clone() for n, p in engine.backbone.module.named_parameters()}
        state = engine.add_trial(trial, DATA)
        found, expected = engine.counts(trial.id), count(build(method, SMALL[method], model.shape), model.shape, 2)
        if method == "adalora":  # none of its triplets is stored before training
            found = replace(found, active=expected.active, stored_bytes=expected.stored_bytes)
        assert found == expected
        while not state.done:
            engine.step()
        if method in SHARING:
            assert all(torch.equal(p, before[n]) for n, p in engine.backbone.module.named_parameters())
            beside = together[family, method][number]
            assert losses(beside) == pytest.approx(losses(state), abs=2e-6)
            assert mostly(beside, state) < 1e-5
