"""Together equals alone: a trial's curve does not depend on the others (fp32 on the CPU, dropout on)."""

import pytest
import torch

from search_spaces.language import Recipe
from tests.fixtures.method_settings import SMALL
from tests.fixtures.trials import make_data, make_trial
from trainables.backbone.backbone import Backbone
from trainables.methods import METHODS
from trainables.training.engine import Engine

SHARING = [name for name, kind in METHODS.items() if kind.shares_backbone]
RECIPE = Recipe(epochs=3, patience=9)


def backbone(model):
    return Backbone.load(model, torch.device("cpu"))


def train(model, trials, data, joins=None, leaves=None):
    """Train all; `joins[i]`: steps before trial i joins; `leaves[i]`: steps after which it is thrown out. Slots by trial."""
    engine, joins, leaves = Engine(backbone(model)), joins or {}, leaves or {}
    states, step = {}, 0
    while len(states) < len(trials) or engine.residents:
        for i, trial in enumerate(trials):
            if joins.get(i, 0) == step:
                states[i] = engine.add_trial(trial, data[i] if isinstance(data, list) else data)
            if leaves.get(i) == step:
                engine.remove_trial(trial.id)
        if engine.residents:
            for state in engine.step():
                if state.done:
                    engine.remove_trial(state.trial.id)
        step += 1
    return [states[i] for i in range(len(trials))]


def losses(state):
    return [p.loss for p in state.progress]


def furthest(a, b):
    return (a.best - b.best).abs().max().item()


def mostly(a, b):
    """Largest difference but for one value in seven: a bias of the keys has no gradient but rounding, and Adam follows that."""
    return (a.best - b.best).abs().quantile(0.86).item()


def mixed_trials():
    return [
        make_trial("adapter", r=4, seed=1, lr=3e-3, recipe=RECIPE),
        make_trial("adapter", r=4, seed=2, batch_size=16, recipe=RECIPE),
        make_trial("madapter", r=4, n_mid=2, seed=3, recipe=RECIPE),
        make_trial("sparse_adapter", r=4, score="snip", seed=4, recipe=RECIPE),
        make_trial("adapter", r=8, seed=5, recipe=RECIPE),
    ]


@pytest.mark.parametrize("family", ["tiny_bert", "tiny_roberta"])
def test_other_methods_change_no_trial(family, request):
    model = request.getfixturevalue(family)
    trials, data = mixed_trials(), [make_data(seed=i, outputs=2 if i != 2 else 3) for i in range(5)]
    together = train(model, trials, data)
    for trial, own, state in zip(trials, data, together, strict=True):
        alone = train(model, [trial], [own])[0]
        assert losses(state) == pytest.approx(losses(alone), abs=1e-6)
        assert furthest(state, alone) < 1e-5
        assert [p.score for p in state.progress] == [p.score for p in alone.progress]


def three_of(method):
    """Three trials of a method and their data: other learning rates, batch sizes and lengths, the third a regression.

    So the first two are stacked, in one tensor of parameters.
    """
    recipe = Recipe(epochs=2)
    kinds = [(3e-3, 8, 2), (1e-2, 4, 2), (3e-3, 16, 1)]
    trials = [
        make_trial(method, seed=2 + i, lr=lr, batch_size=size, recipe=recipe, **SMALL[method])
        for i, (lr, size, _) in enumerate(kinds)
    ]
    return trials, [
        make_data(seed=i, outputs=outputs, test=20, high=10 + 5 * i) for i, (*_, outputs) in enumerate(kinds)
    ]


@pytest.fixture(scope="module")
def together(tiny_model):
    """The states of three trials of every method, all trained in one engine, by method. The second of each joins later."""
    trials, data = zip(*map(three_of, SHARING), strict=True)
    trials, data = [t for each in trials for t in each], [d for each in data for d in each]
    states = train(tiny_model("roberta"), trials, data, joins=dict.fromkeys(range(1, len(trials), 3), 2))
    return {method: states[3 * i : 3 * i + 3] for i, method in enumerate(SHARING)}


@pytest.mark.parametrize("method", SHARING)
def test_every_method_keeps_its_curve_beside_its_like_and_every_other_method(method, together, tiny_model):
    for trial, data, state in zip(*three_of(method), together[method], strict=True):
        alone = train(tiny_model("roberta"), [trial], [data])[0]
        assert losses(state) == pytest.approx(losses(alone), abs=2e-6)
        assert [p.score for p in state.progress] == pytest.approx([p.score for p in alone.progress], abs=1e-3)
        assert mostly(state, alone) < 1e-5


def test_equal_shapes_are_equal_bit_for_bit(tiny_bert):
    data = make_data(low=7, high=8)
    trials = [make_trial("adapter", r=4, seed=s, lr=1e-3 * s, recipe=RECIPE) for s in (1, 2, 3)]
    together = train(tiny_bert, trials, data)
    for trial, state in zip(trials, together, strict=True):
        alone = train(tiny_bert, [trial], data)[0]
        assert losses(state) == losses(alone)
        assert torch.equal(state.best, alone.best)


@pytest.mark.parametrize("method", SHARING)
def test_every_method_is_the_same_beside_its_like_and_another_on_distilbert(method, tiny_model):
    """To rounding: which kernel a product takes depends on how many rows it has, and on the machine."""
    model, data, recipe = tiny_model("distilbert"), make_data(train=24, low=7, high=8), Recipe(epochs=1)
    ours = [make_trial(method, seed=s, lr=1e-3 * s, recipe=recipe, **SMALL[method]) for s in (1, 2)]
    together = train(model, [*ours, make_trial("adapter", r=4, seed=3, recipe=recipe)], data)
    for trial, state in zip(ours, together[:2], strict=True):
        alone = train(model, [trial], data)[0]
        assert losses(state) == pytest.approx(losses(alone), rel=1e-6)
        assert furthest(state, alone) < 1e-5


def test_the_order_of_slots_does_not_matter(tiny_bert):
    data, trials = make_data(low=7, high=8), [make_trial("adapter", r=4, seed=s, recipe=RECIPE) for s in (1, 2, 3)]
    forwards, backwards = train(tiny_bert, trials, data), train(tiny_bert, trials[::-1], data)[::-1]
    for a, b in zip(forwards, backwards, strict=True):
        assert torch.equal(a.best, b.best)


def test_late_joiners_and_early_leavers_change_nobody(tiny_bert):
    data, trials = make_data(), mixed_trials()
    churned = train(tiny_bert, trials, data, joins={1: 2, 2: 4, 4: 7}, leaves={3: 6})
    for i in (0, 1, 2, 4):
        alone = train(tiny_bert, [trials[i]], data)[0]
        assert losses(churned[i]) == pytest.approx(losses(alone), abs=1e-6)


def test_a_diverging_neighbour_is_ended_and_changes_no_bit(tiny_bert):
    data = make_data(low=7, high=8)
    good = make_trial("adapter", r=4, seed=1, recipe=RECIPE)
    bad = make_trial("adapter", r=4, seed=2, lr=1e30, recipe=RECIPE)
    state, diverged = train(tiny_bert, [good, bad], data)
    assert diverged.end_reason == "diverged"
    assert diverged.progress[-1].loss is None
    assert torch.equal(state.best, train(tiny_bert, [good], data)[0].best)


def test_the_seed_reaches_order_dropout_and_start(tiny_bert):
    data = make_data()
    a, b = train(tiny_bert, [make_trial("adapter", r=4, seed=s, recipe=RECIPE) for s in (1, 2)], data)
    assert losses(a) != losses(b)
    again = train(tiny_bert, [make_trial("adapter", r=4, seed=1, recipe=RECIPE)], data)[0]
    assert losses(a) == pytest.approx(losses(again), abs=1e-6)


def test_dropout_is_on_in_training_only(tiny_bert):
    data, quiet = make_data(), Recipe(epochs=1, dropout=0.0)
    engine = Engine(backbone(tiny_bert))
    noisy = make_trial("adapter", r=4, recipe=Recipe(epochs=1))
    engine.add_trial(noisy, data)
    assert engine.test(noisy.id).predictions == engine.test(noisy.id).predictions
    with_dropout = train(tiny_bert, [noisy], data)[0]
    without = train(tiny_bert, [make_trial("adapter", r=4, recipe=quiet)], data)[0]
    assert losses(with_dropout) != losses(without)


def test_a_method_that_trains_the_backbone_is_refused_beside_others(tiny_bert):
    engine, data = Engine(backbone(tiny_bert)), make_data()
    engine.add_trial(make_trial("adapter", r=4), data)
    with pytest.raises(ValueError, match="cannot share"):
        engine.add_trial(make_trial("full"), data)


@pytest.mark.parametrize("family", ["bert", "distilbert", "llama"])
@pytest.mark.parametrize("method", SHARING)
def test_the_frozen_backbone_is_bit_unchanged(method, family, tiny_model):
    shared = backbone(tiny_model(family))
    before = {n: p.detach().clone() for n, p in shared.module.named_parameters()}
    engine, trial = Engine(shared), make_trial(method, lr=1e-2, recipe=RECIPE, **SMALL[method])
    engine.add_trial(trial, make_data())
    for _ in range(4):
        engine.step()
    assert all(torch.equal(p, before[n]) for n, p in shared.module.named_parameters())


def at_odd_address(tensor):
    """A copy as it comes out of a file: not on a boundary of 64 bytes, on which the last bits of products depend."""
    room = torch.empty(tensor.numel() + 10)
    return room[10:].view(tensor.shape).copy_(tensor)


@pytest.mark.parametrize("family", ["bert", "distilbert", "llama"])
@pytest.mark.parametrize("method", METHODS)
def test_a_restored_trial_continues_bit_for_bit(method, family, tiny_model):
    model, data = tiny_model(family), make_data(train=24)
    trial = make_trial(method, lr=1e-2, recipe=Recipe(epochs=2, patience=9), **SMALL[method])
    engine = Engine(backbone(model))
    undisturbed = engine.add_trial(trial, data)
    while not engine.step():
        pass
    state, tensors = engine.state(trial.id)
    tensors, progress = {name: at_odd_address(tensor) for name, tensor in tensors.items()}, list(state.progress)
    fresh = Engine(backbone(model))
    resumed = fresh.restore(trial, data, tensors, state.epoch, progress)
    for each, its in ((engine, undisturbed), (fresh, resumed)):
        while not its.done:
            each.step()
    assert losses(resumed) == losses(undisturbed)
    after = fresh.state(trial.id)[1]
    for name, tensor in engine.state(trial.id)[1].items():
        assert torch.equal(after[name], tensor), name
