"""What a step must not do, whatever it computes: work that grows with the data, with the methods, or that waits for a device."""

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from search_spaces.language import Recipe
from tests.fixtures.trials import make_data, make_trial
from trainables.backbone.backbone import Backbone
from trainables.backbone.packing import sent
from trainables.seeds import permutation
from trainables.training import trial_state as states
from trainables.training.engine import Engine

RECIPE = Recipe(epochs=2, patience=9)
TRIALS = [
    make_trial("adapter", r=4, seed=1, recipe=RECIPE),
    make_trial("lora", r=4, seed=2, recipe=RECIPE),
    make_trial("bitfit", seed=3, recipe=RECIPE),
]


class Operators(TorchDispatchMode):
    """The names of all operators, those of the backward pass too."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.names.append(str(function))
        return function(*args, **(kwargs or {}))


def test_an_epochs_order_is_drawn_once_and_is_that_of_the_seed(tiny_bert, monkeypatch):
    drawn = []

    def counted(*key):
        drawn.append(key)
        return permutation(*key)

    monkeypatch.setattr(states, "permutation", counted)
    engine, data = Engine(Backbone.load(tiny_bert, torch.device("cpu"))), make_data()
    state = engine.add_trial(TRIALS[0], data)
    for epoch in range(2):
        seen = []
        for _ in range(state.steps_per_epoch):
            seen.append(state.batch()[1])
            engine.step()
        assert np.concatenate(seen).tolist() == permutation(len(data.train), 1, "order", epoch).tolist()
    assert [key[-1] for key in drawn] == [0, 1]


def test_the_gradients_of_different_methods_come_back_through_one_split(tiny_bert):
    """A slice for each of them would write, and add up, one zero-filled gradient of all tokens per method and site."""
    engine = Engine(Backbone.load(tiny_bert, torch.device("cpu")))
    for trial in TRIALS:
        engine.add_trial(trial, make_data())
    with Operators() as operators:
        engine.step()
    slices = [name for name in operators.names if "slice_backward" in name]
    assert len(slices) <= len(TRIALS), "one per method, in its head, and none per site"


def test_a_tensor_on_the_cpu_is_not_copied():
    tensor = torch.arange(3)
    assert sent(tensor, torch.device("cpu")) is tensor


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_no_step_waits_for_the_device(tiny_bert, precision):
    engine = Engine(Backbone.load(tiny_bert, torch.device("cuda"), precision))
    for trial in TRIALS:
        engine.add_trial(trial, make_data())
    engine.step()
    torch.cuda.set_sync_debug_mode("error")
    try:
        engine.step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
