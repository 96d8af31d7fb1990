"""Methods of two phases, and diff pruning: what each phase trains, keeps and reports."""

import numpy as np
import pytest
import torch
import transformers

from search_spaces.language import Recipe
from tests.fixtures.mask_methods import LoneTrial, plain
from tests.fixtures.trials import make_data
from tests.trainables.methods.test_methods import CPU
from trainables.backbone.backbone import Backbone
from trainables.methods.context import Values
from trainables.training.parameter_counts import build
from trainables.training.pruning import prunable_parameters


def test_the_first_phase_of_lt_sft_is_full_fine_tuning_of_half_the_epochs(tiny_bert):
    half = LoneTrial(tiny_bert, "full", make_data(), recipe=Recipe(epochs=2, patience=9))
    lone = LoneTrial(tiny_bert, "lt_sft", make_data(), recipe=Recipe(epochs=4, patience=9), keep=0.1)
    half.epochs(2)
    lone.epochs(1)
    while not lone.state.epoch_is_over:
        lone.engine._train([lone.state])
        last_values = lone.parameters.values.clone()
    assert torch.equal(last_values, half.parameters.values)
    lone.epochs(1)
    assert [p.loss for p in lone.state.progress] == [p.loss for p in half.state.progress]

    change = (half.parameters.values[0] - lone.initial).abs()
    backbone = torch.cat([torch.arange(e.start, e.stop) for e in prunable_parameters(lone.layout)])
    number = int(0.1 * len(backbone))
    bound = change[backbone].sort(descending=True).values[number - 1]
    assert int(lone.parameters.pruning_mask[0, backbone].sum()) == number
    assert (change[backbone][lone.parameters.pruning_mask[0, backbone]] >= bound).all()
    assert torch.equal(lone.parameters.values[0], lone.initial)
    assert torch.equal(lone.state.best, lone.initial)
    assert not lone.parameters.moments.any()


def test_the_second_phase_has_a_schedule_and_a_best_epoch_of_its_own(tiny_bert):
    lone = LoneTrial(tiny_bert, "lt_sft", make_data(), recipe=Recipe(epochs=5, patience=1, warmup=0.5), keep=0.2)
    lr_scales = []
    while not lone.state.done:
        lr_scales.append((lone.state.epoch, lone.state.lr_scale()))
        lone.engine.step()
    assert lone.state.phase_boundary_epoch == 2
    second = [scale for epoch, scale in lr_scales if epoch >= 2]
    assert second[0] == pytest.approx(1 / 8)  # 15 steps, the first half of them rising
    assert [scale for epoch, scale in lr_scales if epoch < 2][-1] == pytest.approx(
        1 / 5
    )  # 10 steps, the last five falling
    progress = lone.state.progress
    assert len(progress) >= 3, "a first phase without progress must not end the trial"
    assert [(p.best_epoch, p.best_score) for p in progress[:2]] == [(0, 0.0)] * 2, "the first phase is no result"
    assert progress[2].best_epoch == 3
    assert progress[2].best_score == progress[2].score
    if lone.state.end_reason == "patience":
        assert progress[-1].epoch - progress[-1].best_epoch == 1


@pytest.mark.parametrize("method", ["lt_sft", "diff_pruning"])
def test_what_two_phases_leave_differs_in_no_more_than_the_kept_entries(method, tiny_bert):
    lone = LoneTrial(
        tiny_bert, method, make_data(), lr=3e-3, keep=0.05, recipe=Recipe(epochs=4, patience=9, weight_decay=0.1)
    )
    pristine = {n: p.detach().clone() for n, p in Backbone.load(tiny_bert, CPU).module.named_parameters()}
    number = int(0.05 * sum(p.numel() for p in pristine.values()))
    lone.epochs(2)
    assert torch.equal(lone.state.best, lone.parameters.values[0])
    lone.epochs(2)
    lone.parameters.values.copy_(lone.state.best)
    lone.loss(np.arange(2))
    differing = sum(int((p != pristine[n]).sum()) for n, p in lone.engine.backbone.module.named_parameters())
    assert 0.5 * number < differing <= number


def test_a_first_phase_that_diverges_leaves_the_start(tiny_bert):
    lone = LoneTrial(tiny_bert, "lt_sft", make_data(), lr=1e30, keep=0.1, recipe=Recipe(epochs=6))
    while not lone.state.done:
        lone.engine.step()
    assert lone.state.end_reason == "diverged"
    assert lone.state.epoch <= 3
    assert (lone.state.progress[-1].best_epoch, lone.state.progress[-1].best_score) == (0, 0.0)
    assert torch.equal(lone.state.best, lone.initial)


def hard_concrete(alpha, u):
    s = 1 / (1 + np.exp(-(alpha + np.log(u) - np.log(1 - u))))
    return np.clip(s * 3.0 - 1.5, 0, 1)


def test_diff_pruning_is_its_formula():
    draw = np.random.default_rng(0)
    w, delta, alpha, u = (
        draw.normal(size=(4, 3)),
        draw.normal(size=(4, 3)),
        draw.normal(size=(4, 3)),
        draw.uniform(size=(4, 3)),
    )
    expected = w + delta * hard_concrete(alpha, u) * hard_concrete(0.3, 0.6)
    method = build("diff_pruning", {"l0": 0.5})
    p = Values({n: torch.from_numpy(v)[None] for n, v in {"delta": delta, "alpha": alpha}.items()})
    p["shared_alpha"] = torch.full((1, 1, 1), 0.3, dtype=torch.float64)
    noise = Values(alpha=torch.from_numpy(u)[None], shared_alpha=torch.full((1, 1, 1), 0.6, dtype=torch.float64))
    assert np.allclose(method.effective(torch.from_numpy(w), p, noise)[0].numpy(), expected)
    quiet = w + delta * hard_concrete(alpha, 0.5) * hard_concrete(0.3, 0.5)
    assert np.allclose(method.effective(torch.from_numpy(w), p, None)[0].numpy(), quiet)
    open_gates = (1 / (1 + np.exp(-alpha))).sum() + 1 / (1 + np.exp(-0.3))
    assert float(method.penalty({"backbone.x": p, "head": Values()})) == pytest.approx(0.5 * open_gates)


def test_gradients_of_diff_pruning_are_those_of_the_weights_it_makes(tiny_bert):
    """Oracle: a plain model with the made weights; dL/d delta = z dL/dW, dL/d alpha by the chain rule."""
    lone = LoneTrial(tiny_bert, "diff_pruning", make_data(), structured=False)
    generator = torch.Generator().manual_seed(0)
    for e in lone.layout.entries:
        if e.name.startswith("backbone."):
            scale = 0.01 if e.name.endswith("delta") else 0.5
            lone.parameters.values[0, e.start : e.stop] = scale * torch.randn(e.size, generator=generator)
    row, chosen = lone.parameters.values[0].clone(), np.arange(3)
    pristine = dict(transformers.BertModel.from_pretrained(tiny_bert.path).named_parameters())
    s = {n: torch.sigmoid(lone.of(row, f"backbone.{n}.alpha")) for n in pristine}
    z = {n: (3 * s[n] - 1.5).clamp(0, 1) for n in pristine}
    delta = {n: lone.of(row, f"backbone.{n}.delta") for n in pristine}
    net, losses = plain(tiny_bert, lone, chosen, row, {n: p.data + z[n] * delta[n] for n, p in pristine.items()})
    torch.stack(losses).mean().backward()
    loss = lone.loss(chosen)
    loss.backward()
    lone.parameters.finish_backward()
    assert loss.item() == pytest.approx(torch.stack(losses).mean().item(), abs=1e-5)
    for name, p in net.named_parameters():
        inside = (3 * s[name] - 1.5 > 0) & (3 * s[name] - 1.5 < 1)
        by_alpha = p.grad * delta[name] * 3 * s[name] * (1 - s[name]) * inside
        assert torch.allclose(
            lone.of(lone.parameters.leaf.grad[0], f"backbone.{name}.delta"), p.grad * z[name], atol=1e-5
        )
        assert torch.allclose(lone.of(lone.parameters.leaf.grad[0], f"backbone.{name}.alpha"), by_alpha, atol=1e-5)


def test_the_price_of_open_gates_closes_them_and_is_not_reported(tiny_bert):
    mean = {}
    for l0 in (0.0, 1e-3):
        lone = LoneTrial(tiny_bert, "diff_pruning", make_data(), recipe=Recipe(epochs=4, patience=9, warmup=0.0), l0=l0)
        gates = [e for e in lone.layout.entries if e.name.endswith(".alpha")]
        while not lone.state.epoch_is_over:
            lone.engine._train([lone.state])
        mean[l0] = torch.cat([lone.parameters.values[0, e.start : e.stop] for e in gates]).mean()
        lone.engine.step()
        assert lone.state.progress[0].loss < 2
    assert mean[1e-3] < mean[0.0] - 0.3


def test_a_settled_difference_ignores_noise_and_gates_no_longer_move(tiny_bert):
    lone = LoneTrial(tiny_bert, "diff_pruning", make_data(), lr=3e-3, keep=0.05)
    parameters = lone.epochs(2)
    weights = []
    for noise in (None, 1, 2):
        parameters.private_weights.compute(noise)
        weights.append(torch.cat([p.detach().flatten() for p in lone.engine.backbone.module.parameters()]))
    assert torch.equal(weights[0], weights[1])
    assert torch.equal(weights[0], weights[2])
    gates = [e for e in lone.layout.entries if "alpha" in e.name]
    before = parameters.values.clone()
    lone.epochs(1)
    for e in gates:
        assert torch.equal(parameters.values[0, e.start : e.stop], before[0, e.start : e.stop])
