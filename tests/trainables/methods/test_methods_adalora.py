"""AdaLoRA's budget, scores and masks against peft's allocator, and in training."""

import peft
import pytest
import torch
from peft.tuners.adalora.layer import RankAllocator

from search_spaces.language import Recipe
from tests.fixtures.low_rank import CPU, values_of
from tests.fixtures.trials import make_data, make_trial
from trainables.backbone.backbone import Backbone
from trainables.methods.context import StepValues
from trainables.training.engine import Engine
from trainables.training.parameter_counts import build


class Allocated:
    """peft's allocator on bare matrices of the names it expects, driven with given values and gradients."""

    def __init__(self, sizes, r, target, total, tinit, tfinal, every):
        self.model = torch.nn.Module()
        for i, (inputs, outputs) in enumerate(sizes):
            layer = torch.nn.Module()
            for part, shape in (("A", (r, inputs)), ("E", (r, 1)), ("B", (outputs, r))):
                values = torch.nn.ParameterDict({"default": torch.nn.Parameter(torch.zeros(shape))})
                setattr(layer, f"lora_{part}", values)
            setattr(self.model, f"map{i}", layer)
        config = peft.AdaLoraConfig(
            init_r=r, target_r=target, total_step=total, tinit=tinit, tfinal=tfinal, deltaT=every
        )
        self.wrapped = peft.AdaLoraModel.__new__(peft.AdaLoraModel)
        torch.nn.Module.__init__(self.wrapped)
        self.wrapped.model, self.wrapped.peft_config = self.model, {"default": config}
        self.wrapped.trainable_adapter_name = "default"
        self.wrapped.rankallocator = RankAllocator(self.model, config, "default")

    def step(self, number, values, grads):
        for name, p in self.model.named_parameters():
            p.data.copy_(values[name])
            p.grad = grads[name].clone()
        self.wrapped.update_and_allocate(number)
        return {n: p.detach().clone() for n, p in self.model.named_parameters()}


OURS = {"lora_A": "down", "lora_E": "singular", "lora_B": "up"}


def ours_of(name):
    """map0.lora_A.default -> 0.attention.query.down, or another site."""
    layer, part, _ = name.split(".")
    return f"{layer}.{OURS[part]}"


def as_ours(name, tensor):
    return tensor.view(1, -1) if name.endswith("lora_E.default") else tensor.T


@pytest.mark.parametrize("every", [1, 3])
def test_adalora_cuts_the_ranks_that_peft_cuts(every):
    """Two stacked trials at different steps of schedules of different lengths, against two allocators of peft."""
    sizes, r, target, shares = [(8, 8), (8, 8), (8, 16), (16, 8)], 5, 2, (0.15, 0.25)
    totals, ahead = (20, 40), (0, 7)
    method = build("adalora", {"r": r, "target": target, "tinit": 0.15, "tfinal": 0.25, "every": every})
    theirs = [Allocated(sizes, r, target, T, round(shares[0] * T), round(shares[1] * T), every) for T in totals]
    draw = torch.Generator().manual_seed(0)
    values = [{n: torch.randn(p.shape, generator=draw) for n, p in t.model.named_parameters()} for t in theirs]
    memory = {n: torch.zeros(2, 2, *as_ours(n, v).shape) for n, v in values[0].items()}
    active = []
    for step in range(1, 21):
        numbers = torch.tensor([step + more for more in ahead], dtype=torch.float32)
        grads = [{n: torch.randn(v.shape, generator=draw) for n, v in each.items()} for each in values]
        for each, g in zip(values, grads, strict=True):
            for n in each:
                each[n] = each[n] - 0.1 * g[n]
        everything = {
            ours_of(n): StepValues(
                value=torch.stack([as_ours(n, each[n]) for each in values]),
                grad=torch.stack([as_ours(n, g[n]) for g in grads]),
                memory=memory[n],
            )
            for n in values[0]
        }
        method.after_step(everything, numbers, torch.tensor(totals, dtype=torch.float32))
        for k, oracle in enumerate(theirs):
            values[k] = oracle.step(int(numbers[k]), values[k], grads[k])
            for n, v in values[k].items():
                assert torch.equal(everything[ours_of(n)].value[k], as_ours(n, v)), f"{n} in step {step}"
        active.append([sum(int((v != 0).sum()) for n, v in each.items() if "lora_E" in n) for each in values])
    first, second = zip(*active, strict=True)
    assert first[:3] == (len(sizes) * r,) * 3
    assert first[-6:] == (len(sizes) * target,) * 6
    assert len(set(first)) > 3
    assert first != second


def test_adalora_trains_down_to_its_target_and_stays_there(tiny_bert):
    trial = make_trial("adalora", r=6, target=2, lr=5e-3, recipe=Recipe(epochs=4, patience=9))
    engine = Engine(Backbone.load(tiny_bert, CPU))
    state = engine.add_trial(trial, make_data())
    active = []
    while not state.done:
        engine.step()
        values = values_of(engine, trial.id)
        active.append(sum(int((v != 0).sum()) for n, v in values.items() if n.endswith(".singular")))
    assert len(active) == 20
    assert active[0] == 4 * 6
    assert active[-11:] == [4 * 2] * 11
    assert sorted(active, reverse=True) == active


@pytest.mark.parametrize("targets", ["qv", "all"])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_scored_state_is_at_the_target_rank_and_patience_waits_for_it(targets, seed, tiny_bert):
    recipe = Recipe(epochs=8, patience=1)
    trial = make_trial("adalora", r=4, target=1, targets=targets, lr=3e-2, seed=seed, recipe=recipe)
    engine = Engine(Backbone.load(tiny_bert, CPU))
    state = engine.add_trial(trial, make_data())
    while not state.done:
        engine.step()
    assert state.first_counted_epoch == 4  # the rank is at its target after half of the steps
    assert [p.best_epoch for p in state.progress[:3]] == [0, 0, 0]
    assert state.progress[-1].best_epoch >= 4
    assert state.progress[-1].best_score == max(p.score for p in state.progress[3:])
    singular = [e for e in engine.find(trial.id)[0].parameters.layout.entries if e.name.endswith(".singular")]
    assert sum(int((state.best[e.start : e.stop] != 0).sum()) for e in singular) <= len(singular)


@pytest.mark.parametrize(("tfinal", "first"), [(0.0, 5), (0.1, 5), (0.2, 4), (0.5, 3), (0.9, 1)])
def test_the_first_counted_epoch_is_the_first_that_ends_at_the_target(tfinal, first, tiny_bert):
    """5 epochs of 5 steps; the last epoch always counts."""
    trial = make_trial("adalora", tinit=0.0, tfinal=tfinal, recipe=Recipe(epochs=5, patience=9), r=4, target=2)
    state = Engine(Backbone.load(tiny_bert, CPU)).add_trial(trial, make_data())
    assert (state.steps_per_epoch, state.first_counted_epoch) == (5, first)
    method, total = state.method, torch.tensor([25.0])
    start = (method.tinit * total.double()).round()
    last = torch.tensor([float(method.target_step(25))])
    assert int(method.budget(last, start, last, 4)) == 4 * 2
    assert torch.equal(last.double(), total.double() - (tfinal * total.double()).round())


def test_scores_stay_with_their_trial_when_others_come_and_go(tiny_bert):
    engine, data = Engine(Backbone.load(tiny_bert, CPU)), make_data()
    trials = [make_trial("adalora", r=6, target=2, seed=seed) for seed in (1, 2, 3)]
    for trial in trials[:2]:
        engine.add_trial(trial, data)
    for _ in range(3):
        engine.step()
    before = [engine.state(trial.id)[1]["memory"].clone() for trial in trials[:2]]
    assert all(each.any() for each in before)
    assert not torch.equal(*before)
    engine.add_trial(trials[2], data)
    engine.set_active([trials[1].id])
    engine.set_active([trial.id for trial in trials])
    for trial, each in zip(trials[:2], before, strict=True):
        assert torch.equal(engine.state(trial.id)[1]["memory"], each)
    assert not engine.state(trials[2].id)[1]["memory"].any()
    engine.remove_trial(trials[0].id)
    assert torch.equal(engine.state(trials[1].id)[1]["memory"], before[1])


def test_the_orthogonality_is_trained_but_not_reported(tiny_bert):
    data, recipe = make_data(train=8), Recipe(epochs=1, dropout=0.0)
    reported, ends = [], []
    for gamma in (0.0, 10.0):
        trial = make_trial("adalora", r=6, target=6, gamma=gamma, batch_size=8, recipe=recipe)
        engine = Engine(Backbone.load(tiny_bert, CPU))
        state = engine.add_trial(trial, data)
        while not state.done:
            engine.step()
        reported.append(state.progress[0].loss)
        ends.append(values_of(engine, trial.id)["0.attention.query.down"])
    assert reported[0] == reported[1]
    assert not torch.equal(*ends)
