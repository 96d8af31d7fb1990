"""What a plan says of the disk, against the files that trials really write."""

import pytest
import torch

from orchestrator.planning.disk_usage import checkpoint_sizes, row_size
from search_spaces.language import Recipe
from tests.fixtures.trials import make_data, make_trial
from trainables.backbone.backbone import Backbone
from trainables.backbone.models import resolve
from trainables.methods import METHODS
from trainables.training.engine import Engine
from trainables.training.parameter_layout import ParameterLayout


def small(kind):
    """Settings that fit an encoder 32 wide."""
    return {key: value for key, value in {"r": 4}.items() if key in kind().settings()}


@pytest.fixture(scope="module", params=["tiny_bert", "tiny_roberta"])
def backbone(request):
    model = request.getfixturevalue(request.param)
    return Backbone.load(resolve(str(model.path)), torch.device("cpu"))


@pytest.mark.parametrize("name", METHODS)
def test_a_row_has_as_many_numbers_as_the_engine_lays_out(name, backbone):
    kind = METHODS[name]
    method = kind(**small(kind))
    assert row_size(method, backbone.shape, 3) == ParameterLayout(method, backbone, 3).size


@pytest.mark.parametrize("name", ["adapter", "sparse_adapter", "full", "ia3"])
def test_checkpoints_hold_the_bytes_that_are_foreseen(name, backbone):
    settings = small(METHODS[name])
    engine, trial = Engine(backbone), make_trial(name, recipe=Recipe(epochs=2), **settings)
    state = engine.add_trial(trial, make_data())
    while not state.done:
        engine.step()
    tensors = engine.state(trial.id)[1]
    sizes = {key: tensor.numel() * tensor.element_size() for key, tensor in tensors.items()}
    expected = checkpoint_sizes(METHODS[name](**settings), backbone.shape, 2)
    assert sum(sizes.values()) == expected.running
    assert sum(size for key, size in sizes.items() if key in ("best", "keep")) == expected.finished
