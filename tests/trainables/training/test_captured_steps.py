"""Steps on padded mini-batches of recurring sizes give the results of other steps; what cannot be captured runs as before."""

from functools import partial

import numpy as np
import pytest
import torch

from search_spaces.language import Recipe
from tests.fixtures.captured import FakeGraphs, fake_steps
from tests.fixtures.method_settings import SMALL
from tests.fixtures.trials import make_data, make_trial
from trainables.backbone.backbone import Backbone
from trainables.backbone.packing import needed_sizes, pack
from trainables.methods import METHODS
from trainables.training import captured_steps, training_step
from trainables.training.captured_steps import (
    MOST_MEMORY,
    SEEN_BEFORE,
    CapturedSteps,
    CudaGraphs,
    padded_for,
    rounded_up,
)
from trainables.training.engine import Engine
from trainables.training.training_step import compute, draw

CPU = torch.device("cpu")
RECIPE = Recipe(epochs=3, patience=9)
SHARING = [name for name, kind in METHODS.items() if kind.shares_backbone]
MIXED = [
    make_trial("adapter", r=4, seed=1, lr=3e-3, recipe=RECIPE),
    make_trial("adapter", r=4, seed=2, batch_size=16, recipe=RECIPE),
    make_trial("prefix", **SMALL["prefix"], seed=3, recipe=RECIPE),
    make_trial("prompt_tuning", **SMALL["prompt_tuning"], seed=4, recipe=RECIPE),
    make_trial("bitfit", seed=5, batch_size=4, recipe=RECIPE),
]


def ragged(train=44):
    """The last mini-batch of an epoch is smaller, and lengths differ widely."""
    return make_data(train=train, low=3, high=40)


def train(model, trials, data, captured=None, epochs=3):
    engine = Engine(Backbone.load(model, CPU), captured)
    states = [engine.add_trial(trial, data) for trial in trials]
    while engine.residents:
        for state in engine.step():
            if state.epoch == epochs:
                engine.remove_trial(state.trial.id)
    return states


def losses(states):
    return [p.loss for state in states for p in state.progress]


@pytest.mark.parametrize("family", ["bert", "llama", "mistral"])
def test_mixed_trials_have_the_same_losses_with_and_without_padding(family, tiny_model):
    model = tiny_model(family)
    captured = fake_steps()
    data = ragged(train=92)
    plain, padded = train(model, MIXED, data), train(model, MIXED, data, captured)
    assert losses(padded) == pytest.approx(losses(plain), abs=1e-5)
    assert captured.replays > 15, captured.refused
    for a, b in zip(plain, padded, strict=True):
        assert (a.best - b.best).abs().quantile(0.86) < 1e-4


@pytest.mark.parametrize("method", SHARING)
def test_the_gradients_of_every_method_do_not_depend_on_padding_and_fillers(method, tiny_bert):
    engine = Engine(Backbone.load(tiny_bert, CPU))
    for seed in (1, 2):
        engine.add_trial(make_trial(method, seed=seed, recipe=RECIPE, **SMALL[method]), ragged(train=6))
    (stack, backbone), found = (engine._stacks[0], engine.backbone), []
    batches = [state.batch() for state in stack.states]
    needed = needed_sizes(batches, [2], [stack.states[0].method.virtual_tokens] * 2, [8, 8])
    for sizes in (None, padded_for(needed)):
        start, moments = stack.parameters.values.clone(), stack.parameters.moments.clone()
        memory = stack.parameters.memory.clone()
        compute([stack], backbone, draw([stack], backbone, sizes))
        found.append((stack.parameters.losses.clone(), stack.parameters.moments[0].clone()))
        stack.parameters.values.copy_(start)
        stack.parameters.moments.copy_(moments)
        stack.parameters.memory.copy_(memory)
        stack.parameters.losses.zero_()
    (loss, moment), (other_loss, other_moment) = found
    assert torch.allclose(loss, other_loss, atol=1e-6)
    assert torch.allclose(moment, other_moment, atol=1e-6, rtol=1e-4)
    assert moment.abs().max() > 1e-6


def test_padded_rows_have_the_sizes_asked_for_whatever_the_batch(tiny_bert):
    data, shapes = ragged().train, []
    for chosen in (np.arange(8), np.arange(20, 25), np.array([3])):
        batches = [(data, chosen), (data, chosen[:2])]
        sizes = padded_for(needed_sizes([(data, np.arange(8))] * 2, [1, 1], [2, 0], [8, 4]))
        needed = needed_sizes(batches, [1, 1], [2, 0], [8, 4])
        assert all(a <= b for a, b in zip(needed.widths, sizes.widths, strict=True))
        rows = pack(batches, 4, CPU, [1, 1], [2, 0], sizes)
        shapes.append([tuple(v.shape) for v in vars(rows).values() if isinstance(v, torch.Tensor)])
        assert rows.weights.sum(1).tolist() == pytest.approx([1, 1])
        assert rows.tokens == pack(batches, 4, CPU, [1, 1], [2, 0]).tokens
    assert shapes[0] == shapes[1] == shapes[2]


def test_equal_lengths_are_not_padded():
    data = make_data(low=7, high=8).train
    sizes = padded_for(needed_sizes([(data, np.arange(4))] * 3, [2, 1], [0, 0, 0], [4, 4, 4]))
    assert (sizes.exact, sizes.longest, sizes.widths) == (True, 7, (28, 28))
    assert not needed_sizes([(data, np.arange(3))], [1], [0], [4]).exact


def test_sizes_are_few_and_padding_is_little():
    assert [rounded_up(n) for n in (1, 8, 9, 65, 130, 1000)] == [8, 8, 16, 72, 144, 1024]
    assert len({rounded_up(n) for n in range(64, 1025)}) <= 40
    assert all(n <= rounded_up(n) <= 1.13 * n + 1 for n in range(64, 5000))


def test_a_trial_that_diverged_does_not_reach_the_others(tiny_bert):
    diverging = make_trial("adapter", r=4, seed=9, lr=1e30, recipe=RECIPE)
    alone = train(tiny_bert, MIXED[:2], ragged(), fake_steps())
    together = train(tiny_bert, [diverging, *MIXED[:2]], ragged(), fake_steps(), epochs=3)
    assert together[0].progress[-1].diverged
    assert losses(together[1:]) == pytest.approx(losses(alone), abs=1e-5)


def test_graphs_are_dropped_when_a_trial_joins_or_leaves(tiny_bert):
    captured = fake_steps()
    engine, data = Engine(Backbone.load(tiny_bert, CPU), captured), make_data(train=400, low=7, high=8)
    counts = []
    for trial in MIXED[:2]:
        engine.add_trial(trial, data)
        for _ in range(SEEN_BEFORE + 3):
            engine.step()
        counts.append((captured.captures, captured.replays))
    engine.remove_trial(MIXED[0].id)
    for _ in range(SEEN_BEFORE + 1):
        engine.step()
    assert [*counts, (captured.captures, captured.replays)] == [(1, 3), (2, 6), (3, 7)]


@pytest.mark.parametrize("error", [RuntimeError("operation not permitted"), torch.OutOfMemoryError("planted")])
def test_what_cannot_be_captured_runs_as_before_and_holds_no_memory(error, tiny_bert):
    plain = train(tiny_bert, MIXED[:3], ragged())
    graphs = FakeGraphs(error)
    captured = graphs.steps
    assert losses(train(tiny_bert, MIXED[:3], ragged(), captured)) == pytest.approx(losses(plain), abs=1e-5)
    assert (captured.replays, captured.captures, captured.num_bytes) == (0, 0, 0)
    assert graphs.given_back > 0


@pytest.mark.parametrize("fails", ["draw", "compute"])
@pytest.mark.parametrize("number", [0, 2])
def test_a_padded_step_that_runs_out_of_memory_is_taken_without_graphs(fails, number, tiny_bert, monkeypatch):
    """Both before there is a graph and in a replay; the trials are captured again only when one has joined or left."""
    data, calls = make_data(train=400, low=7, high=8), []
    plain = run_steps(tiny_bert, data, None, 8)
    real = getattr(captured_steps, fails)

    def planted(*arguments):
        calls.append(arguments)
        found = real(*arguments) if fails == "draw" or len(calls) != number + 1 else None
        if len(calls) == number + 1:
            if fails == "compute":  # the gradients are there already: what is left must not count twice
                training_step.backward(*arguments)
            raise torch.OutOfMemoryError("planted")
        return found

    monkeypatch.setattr(captured_steps, fails, planted)
    captured = fake_steps()
    assert torch.allclose(run_steps(tiny_bert, data, captured, 8), plain, atol=1e-6)
    assert captured.refused == "OutOfMemoryError: planted"
    assert captured.num_bytes == 0
    assert len(calls) == number + 1  # not tried again


def run_steps(model, data, captured, number):
    """The parameters of two trials after so many steps."""
    engine = Engine(Backbone.load(model, CPU), captured)
    for trial in MIXED[:2]:
        engine.add_trial(trial, data)
    for _ in range(number):
        engine.step()
    return torch.cat([engine.state(trial.id)[1]["values"] for trial in MIXED[:2]])


def test_after_a_refusal_steps_are_captured_again_when_a_trial_leaves(tiny_bert):
    captured, data = fake_steps(), make_data(train=400, low=7, high=8)
    engine = Engine(Backbone.load(tiny_bert, CPU), captured)
    for trial in MIXED[:2]:
        engine.add_trial(trial, data)
    for _ in range(SEEN_BEFORE + 1):
        engine.step()
    assert engine.graph_bytes > 0
    engine.zero_grad()
    assert engine.graph_bytes == 0
    for _ in range(SEEN_BEFORE + 1):
        engine.step()
    assert captured.replays == 1
    engine.remove_trial(MIXED[0].id)
    for _ in range(SEEN_BEFORE + 1):
        engine.step()
    assert captured.replays == 2


def test_the_inputs_of_graphs_take_a_third_of_the_free_memory_at_most(tiny_bert):
    """Six lengths in turn: with memory for all, for some, and for none but those of the last step."""
    lengths = [8, 16, 24, 32, 40, 48]
    held = {}
    for total in (1e12, 6e6, 0):
        captured = fake_steps(total=total)
        engine = Engine(Backbone.load(tiny_bert, CPU), captured)
        engine.add_trial(MIXED[0], make_data(train=400, low=7, high=8))
        state = engine.find(MIXED[0].id)[0].states[0]
        most = 0
        for length in lengths * (SEEN_BEFORE + 1):
            state.data = make_data(train=400, low=length, high=length + 1)
            engine.step()
            sizes = [each.num_bytes for each in captured._graphs.values() if each.inputs]
            assert len(sizes) <= 1 or sum(sizes) <= MOST_MEMORY * total
            most = max(most, len(sizes))
        held[total] = (most, captured.replays)
    assert held[1e12] == (6, 6)
    assert held[0] == (1, 1)  # of the last length, whose inputs were kept for its next step
    assert 1 < held[6e6][0] < 6


def test_trials_that_train_backbone_weights_are_not_captured(tiny_bert):
    captured = fake_steps()
    engine = Engine(Backbone.load(tiny_bert, CPU), captured)
    engine.add_trial(make_trial("full", recipe=RECIPE), ragged())
    for _ in range(SEEN_BEFORE + 2):
        engine.step()
    assert "backbone weights" in captured.refused
    assert (captured.captures, captured.num_bytes) == (0, 0)


@pytest.mark.gpu
def test_replayed_steps_have_the_losses_of_other_steps_on_a_device(tiny_bert):
    found = []
    for captured in (None, CapturedSteps()):
        engine = Engine(Backbone.load(tiny_bert, torch.device("cuda")), captured)
        states = [engine.add_trial(trial, ragged()) for trial in MIXED]
        for _ in range(9):
            engine.step()
        found.append(losses(states))
    assert found[1] == pytest.approx(found[0], abs=1e-4)
    assert captured.replays > 0, captured.refused


def test_a_peak_from_before_memory_was_given_back_does_not_count_as_what_a_step_needs(monkeypatch):
    called = []
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: None)
    for name in ("empty_cache", "reset_peak_memory_stats"):
        monkeypatch.setattr(torch.cuda, name, partial(called.append, name))
    CudaGraphs().give_back()
    assert called == ["empty_cache", "reset_peak_memory_stats"]
