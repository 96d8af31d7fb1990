"""The last layer goes on with each example's first token alone, unless a method of the pass looks at the others."""

import pytest
import torch

from search_spaces.language import Recipe
from tests.fixtures.method_settings import SMALL
from tests.fixtures.trials import make_data, make_trial
from tests.trainables.training.test_engine_equality import SHARING, losses, mostly, train
from trainables.backbone.backbone import Backbone
from trainables.methods import METHODS
from trainables.methods.base import Method
from trainables.training.engine import Engine

RECIPE = Recipe(epochs=2)
READERS = {name for name in SHARING if METHODS[name](**SMALL[name]).reads_all_tokens}


def widths(model, trials, monkeypatch):
    """How many tokens come to each layer in the first step, and how many leave it."""
    engine, seen = Engine(Backbone.load(model, torch.device("cpu"))), []
    for trial in trials:
        engine.add_trial(trial, make_data())
    layer = engine.backbone.layer

    def seeing(run, number, h):
        out = layer(run, number, h)
        seen.append((h.shape[1], out.shape[1]))
        return out

    monkeypatch.setattr(engine.backbone, "layer", seeing)
    engine.step()
    return seen


def test_only_first_tokens_leave_the_last_layer(tiny_bert, monkeypatch):
    trials = [make_trial("adapter", r=4, seed=1), make_trial("lora", r=4, seed=2)]
    *inner, last = widths(tiny_bert, trials, monkeypatch)
    assert all(came == went for came, went in inner)
    assert last == (inner[0][0], 2 * trials[0].batch_size)


@pytest.mark.parametrize(
    "reader",
    [
        make_trial("unipelt", **SMALL["unipelt"]),
        make_trial("linear_probe", reads="mean"),
        make_trial("houlsby_variant", r=4, variant="batch_norm"),
    ],
    ids=lambda trial: trial.method,
)
def test_one_method_that_looks_at_other_tokens_keeps_them_all(reader, tiny_bert, monkeypatch):
    came, went = widths(tiny_bert, [make_trial("adapter", r=4, seed=1), reader], monkeypatch)[-1]
    assert came == went


@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert", "llama"])
def test_what_is_left_out_changes_nothing_for_any_method(family, tiny_model, monkeypatch):
    model, data = tiny_model(family), make_data(train=24)
    # Different numbers of examples: some places of the smaller rows stand empty.
    trials = [
        make_trial("adapter", r=4, seed=1, batch_size=16, recipe=RECIPE),
        *(make_trial(m, seed=2, lr=3e-3, recipe=RECIPE, **SMALL[m]) for m in SHARING if m not in READERS),
    ]
    came, went = widths(model, trials, monkeypatch)[-1]
    assert went < came, "no method of this test reads all tokens"
    first = train(model, trials, data)
    monkeypatch.setattr(Method, "reads_all_tokens", property(lambda method: True))
    for trial, some, every in zip(trials, first, train(model, trials, data), strict=True):
        assert losses(some) == pytest.approx(losses(every), abs=2e-6), trial.method
        assert mostly(some, every) < 1e-4, trial.method


def test_a_method_that_does_not_say_what_it_reads_is_refused(tiny_bert, monkeypatch):
    monkeypatch.setattr(METHODS["unipelt"], "reads_all_tokens", property(lambda method: False))
    engine = Engine(Backbone.load(tiny_bert, torch.device("cpu")))
    engine.add_trial(make_trial("unipelt", **SMALL["unipelt"]), make_data())
    with pytest.raises(AssertionError, match="reads_all_tokens"):
        engine.step()
