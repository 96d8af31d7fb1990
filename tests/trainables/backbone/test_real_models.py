"""The same equalities on real weights: an encoder of 110 million parameters, a decoder of 135 million."""

from importlib.util import find_spec

import pytest

from search_spaces.language import Recipe
from tests.trainables.backbone import test_decoder_equality, test_newer_encoders
from tests.trainables.peft_training.test_same_method import both, train
from trainables.backbone import packaged_models
from trainables.backbone.models import resolve

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def real():
    """A function from a name to the model. Its files are written into the user's cache, as for a user."""

    def get(name):
        packages = packaged_models.PACKAGED_MODELS[name].parts
        if not packaged_models.local(name) and not packaged_models._files(packages):
            pytest.skip(f"the packages of {name} are not installed")
        if name == "smollm2" and not packaged_models.local(name) and not find_spec("gguf"):
            pytest.skip("the package gguf is not installed")
        return resolve(name)

    return get


def test_three_methods_on_mpnet_together_equal_transformers(real):
    logits, gradients = test_newer_encoders.furthest(real("mpnet-base"), explicit=False, high=24)
    assert logits < 1e-4
    assert gradients < 1e-4


def test_three_methods_on_smollm2_together_equal_transformers(real):
    assert test_decoder_equality.distance(real("smollm2")) < 1e-4


@pytest.mark.parametrize("name", ["mpnet-base", "smollm2"])
def test_lora_has_the_losses_of_a_plain_loop_with_peft(real, name):
    ours, theirs, trial, other = both(real(name), "lora", lr=1e-3, recipe=Recipe(epochs=3, patience=3, dropout=0.0))
    losses, result, _ = train(ours, trial.id)
    their_losses, their_result, _ = train(theirs, other.id)
    assert losses == pytest.approx(their_losses, abs=1e-4)
    assert max(losses) - min(losses) > 1e-2
    assert result == their_result
