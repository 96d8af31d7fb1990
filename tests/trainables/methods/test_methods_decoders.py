"""The contract of every method on decoders: together as alone, with the declared parameters; what cannot be is refused."""

import math

import pytest
import torch

from search_spaces.language import Recipe
from tests.fixtures.method_settings import SMALL
from tests.fixtures.trials import make_data, make_trial
from trainables.backbone.backbone import Backbone
from trainables.methods import METHODS
from trainables.training.engine import Engine
from trainables.training.parameter_counts import build, count

CPU, RECIPE = torch.device("cpu"), Recipe(epochs=2, patience=9)
SHARING = [name for name, kind in METHODS.items() if kind.shares_backbone]
# They read the sum of an output and the residual through the norm that follows it; OLMo 2 has none there.
READS_SUMS = ["pfeiffer", "adapter_drop", "adapter_drop_robust", "unipelt", "propetl"]
DATA = make_data(train=16, test=9, outputs=3)


def trial_of(method, number=1):
    return make_trial(method, seed=number, lr=3e-3, recipe=RECIPE, **SMALL[method])


def trained(model, methods):
    """The states of one trial of each method, all trained in one engine; their numbers of parameters are the declared ones."""
    engine = Engine(Backbone.load(model, CPU))
    trials = [trial_of(method) for method in methods]
    states = [engine.add_trial(trial, DATA) for trial in trials]
    for trial in trials:
        assert (
            engine.counts(trial.id).trained
            == count(build(trial.method, trial.settings, model.shape), model.shape, 3).trained
        )
    while engine.residents:
        for state in engine.step():
            if state.done:
                engine.remove_trial(state.trial.id)
    return states


@pytest.fixture(scope="module")
def together(tiny_model):
    """A function from a family to the states of all methods that share a backbone, trained together."""
    found = {}

    def get(family):
        if family not in found:
            found[family] = dict(zip(SHARING, trained(tiny_model(family), SHARING), strict=True))
        return found[family]

    return get


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("family", ["llama", "qwen3"])
def test_every_method_trains_on_a_decoder_and_does_not_depend_on_the_others(method, family, together, tiny_model):
    alone = trained(tiny_model(family), [method])[0]
    losses = [each.loss for each in alone.progress]
    assert len(losses) == 2
    assert all(math.isfinite(loss) for loss in losses)
    if method in SHARING:
        assert losses == pytest.approx([each.loss for each in together(family)[method].progress], abs=5e-6)


@pytest.mark.parametrize("family", ["smollm3", "olmo2", "gemma2", "gemma3_text", "phi3", "gpt2"])
def test_all_methods_that_share_a_backbone_train_on_every_decoder(family, tiny_model):
    methods = [name for name in SHARING if not (family == "olmo2" and name in READS_SUMS)]
    for state in trained(tiny_model(family), methods):
        assert all(math.isfinite(each.loss) for each in state.progress), state.trial.method


@pytest.mark.parametrize("method", METHODS)
def test_a_method_that_reads_a_norm_that_the_model_lacks_is_refused_before_it_starts(method, tiny_model):
    if method in READS_SUMS:
        with pytest.raises(
            ValueError, match=r"this model has none there: .* Take a method whose adapter reads the output"
        ):
            build(method, SMALL[method], tiny_model("olmo2").shape)
    else:
        build(method, SMALL[method], tiny_model("olmo2").shape)
