"""What the cards of the mask and freezing families promise, held against plain transformers models and dense formulas."""

import numpy as np
import pytest
import torch
import transformers

from orchestrator.planning.plan import make_plan
from orchestrator.run_options import RunOptions
from search_spaces.language import Recipe, Space, choice, method
from tests.fixtures.mask_methods import PART, LoneTrial, plain
from tests.fixtures.method_settings import SMALL
from tests.fixtures.trials import make_data, make_trial
from tests.trainables.methods.test_methods import BERT, CPU, ROBERTA
from trainables.backbone.backbone import Backbone
from trainables.seeds import permutation
from trainables.training.engine import Engine
from trainables.training.parameter_counts import build, count
from trainables.training.pruning import _highest, prunable_parameters
from trainables.worker import checkpoint

COUNTS = [
    ("top_layers", {"k": 1}, 7_678_464, 7_087_872),
    ("top_layers", {"k": 3}, 21_854_208, 3 * 7_087_872),
    ("top_layers", {"k": 7}, 50_205_696, 7 * 7_087_872),
    ("top_layers", {"k": 12}, 85_645_056, 12 * 7_087_872),
    ("threshold_mask", {}, 85_524_480, 85_524_480 - 768 * 768),
    ("threshold_mask", {"lowest": 2}, 70_778_880 + 768 * 768, 70_778_880),
    ("fish_mask", {"keep": 0.005}, 109_482_240 // 200, (124_645_632 - 590_592) // 200),
    ("child_tuning_d", {"keep": 0.3}, 25_516_339 + 23_837_184 + 590_592, 25_516_339 + 39_000_576),
    ("child_tuning_f", {}, 109_482_240, 124_645_632 - 590_592),
    ("lt_sft", {}, 109_482_240, 124_645_632 - 590_592),
    ("diff_pruning", {"structured": False}, 2 * 109_482_240, 2 * (124_645_632 - 590_592)),
    ("diff_pruning", {}, 2 * 109_482_240 + 199, 2 * (124_645_632 - 590_592) + 197),
]


@pytest.mark.parametrize(("method", "settings", "on_bert", "on_roberta"), COUNTS)
def test_counts_on_base_encoders_are_those_of_the_cards(method, settings, on_bert, on_roberta):
    for shape, expected in ((BERT, on_bert), (ROBERTA, on_roberta)):
        counts = count(build(method, settings, shape), shape, 2)
        assert counts.module == expected
        assert counts.trained == expected + shape.head(2)


@pytest.mark.parametrize(
    ("method", "settings", "message"),
    [
        ("top_layers", {"k": 13}, "between 1 and 12"),
        ("threshold_mask", {"masked": 0.0}, "masked = 0.0"),
        ("threshold_mask", {"lowest": 12}, "between 0 and 11"),
        ("fish_mask", {"keep": 1.5}, "between 1e-06 and 1"),
        ("fish_mask", {"examples": 0}, "examples = 0"),
        ("lt_sft", {"keep": 0}, "keep = 0"),
        ("diff_pruning", {"l0": -1.0}, "l0 = -1.0"),
        ("child_tuning_f", {"keep": 0}, "keep = 0"),
        ("child_tuning_d", {"keep": 2}, "keep = 2"),
    ],
)
def test_settings_that_no_backbone_allows_are_refused(method, settings, message):
    with pytest.raises(ValueError, match=message):
        build(method, settings, BERT)


@pytest.mark.parametrize("method", ["lt_sft", "diff_pruning"])
def test_a_single_epoch_leaves_no_room_for_two_phases(method, tiny_bert):
    with pytest.raises(ValueError, match="epochs = 1: must be at least 2"):
        Engine(Backbone.load(tiny_bert, CPU)).add_trial(make_trial(method, recipe=Recipe(epochs=1)), make_data())


def test_top_layers_move_and_nothing_below_does(tiny_bert):
    lone = LoneTrial(tiny_bert, "top_layers", make_data(), k=1)
    before = {n: p.detach().clone() for n, p in lone.engine.backbone.module.named_parameters()}
    lone.epochs(1)
    moved = {n for n, p in lone.engine.backbone.module.named_parameters() if not torch.equal(p, before[n])}
    assert moved == {n for n in before if n.startswith(("encoder.layer.1.", "pooler."))}


def test_gradients_of_the_top_layers_are_those_of_a_plain_model(tiny_bert):
    lone = LoneTrial(tiny_bert, "top_layers", make_data(), k=1)
    lone.loss(np.arange(4)).backward()
    net, losses = plain(tiny_bert, lone, range(4))
    torch.stack(losses).mean().backward()
    for name, parameter in net.named_parameters():
        if name.startswith(("encoder.layer.1.", "pooler.")):
            assert torch.allclose(lone.of(lone.parameters.leaf.grad[0], f"backbone.{name}"), parameter.grad, atol=1e-6)


def test_a_threshold_mask_is_the_masked_model_with_gradients_straight_through(tiny_bert):
    """Oracle: dense products W * 1[m > tau] in a plain model; dL/dm = W * dL/dW'."""
    lone = LoneTrial(tiny_bert, "threshold_mask", make_data(), masked=0.2)
    row, chosen = lone.parameters.values[0].clone(), np.arange(4)
    pristine = dict(transformers.BertModel.from_pretrained(tiny_bert.path).named_parameters())
    scored = [e.name.removeprefix("backbone.").removesuffix(".score") for e in prunable_parameters(lone.layout)]
    assert sum(name.startswith("encoder.layer.") for name in scored) == 12
    assert "pooler.dense.weight" in scored
    weights = {n: pristine[n].data * (lone.of(row, f"backbone.{n}.score") > 0.01) for n in scored}
    net, losses = plain(tiny_bert, lone, chosen, row, weights)
    torch.stack(losses).mean().backward()
    loss = lone.loss(chosen)
    loss.backward()
    lone.parameters.finish_backward()
    assert loss.item() == pytest.approx(torch.stack(losses).mean().item(), abs=1e-5)
    gradients = {n: p.grad for n, p in net.named_parameters()}
    for name in scored:
        ours = lone.of(lone.parameters.leaf.grad[0], f"backbone.{name}.score")
        assert torch.allclose(ours, pristine[name] * gradients[name], atol=1e-6)
    out = torch.cat([(lone.of(row, f"backbone.{n}.score") <= 0.01).flatten() for n in scored]).float().mean()
    assert float(out) == pytest.approx(0.2, abs=0.01)


def test_threshold_scores_do_not_decay_and_the_pretrained_weights_stay(tiny_bert):
    still = Recipe(epochs=1, weight_decay=0.5, warmup=0.0)
    lone = LoneTrial(tiny_bert, "threshold_mask", make_data(), recipe=still, lr=1e-3)
    assert not any(e.decayed for e in lone.layout.entries if e.name.endswith(".score"))
    before = {n: w.clone() for n, (_, w, _) in lone.parameters.private_weights._computed.items()}
    lone.epochs(1)
    assert all(torch.equal(w, before[n]) for n, (_, w, _) in lone.parameters.private_weights._computed.items())


def test_fish_keeps_the_largest_sums_of_squared_single_gradients(tiny_bert):
    """Oracle: a plain model, one backward per example."""
    lone = LoneTrial(tiny_bert, "fish_mask", make_data(train=24), keep=0.02, examples=24)
    net, losses = plain(tiny_bert, lone, range(24))
    fisher = {n: torch.zeros_like(p) for n, p in net.named_parameters()}
    for loss in losses:
        net.zero_grad()
        loss.backward()
        for name, parameter in net.named_parameters():
            fisher[name] += parameter.grad.square()
    entries = prunable_parameters(lone.layout)
    ours = torch.cat([lone.parameters.pruning_mask[0, e.start : e.stop] for e in entries])
    theirs = torch.cat([fisher[e.name.removeprefix("backbone.")].flatten() for e in entries])
    number = len(theirs) * 2 // 100
    assert int(ours.sum()) == number
    assert (ours == _highest(theirs, number)).float().mean() > 0.9995  # ties within rounding
    assert theirs[ours].min() >= 0.99 * theirs[~ours].max()


def test_child_tuning_d_sums_squares_of_clipped_batch_gradients(tiny_bert):
    """Oracle: a plain model on the same batches, dropout at 0."""
    recipe, data = Recipe(epochs=2, dropout=0.0, clip=0.05), make_data(train=24)
    lone = LoneTrial(tiny_bert, "child_tuning_d", data, recipe=recipe)
    order, fisher = permutation(24, lone.trial.seed, "scoring"), {}
    for start in (0, 8, 16):
        net, losses = plain(tiny_bert, lone, order[start : start + 8])
        torch.stack(losses).mean().backward()
        for name, p in net.named_parameters():
            torch.nn.utils.clip_grad_norm_([p], 0.05)
            fisher[name] = fisher.get(name, 0) + p.grad.square()
    entries = prunable_parameters(lone.layout)
    assert {e.name.split(".")[1] for e in entries} == {"encoder"}
    ours = torch.cat([lone.parameters.pruning_mask[0, e.start : e.stop] for e in entries])
    theirs = torch.cat([fisher[e.name.removeprefix("backbone.")].flatten() for e in entries])
    assert int(ours.sum()) == int(0.3 * len(theirs))
    assert (ours == _highest(theirs, int(ours.sum()))).float().mean() > 0.999
    free = [e for e in lone.layout.entries if e not in entries]
    assert all(lone.parameters.pruning_mask[0, e.start : e.stop].all() for e in free)


@pytest.mark.parametrize(("name", "masked_first"), [("child_tuning_d", False), ("fish_mask", True)])
def test_child_tuning_d_clips_by_the_norm_of_all_gradients_before_it_masks(name, masked_first, tiny_bert):
    """Oracle: gradients of a plain model, clipped by torch, then masked; FISH masks first. Adam's first moment shows them."""
    recipe = Recipe(epochs=2, dropout=0.0, clip=0.05)
    lone = LoneTrial(tiny_bert, name, make_data(), recipe=recipe, **SMALL[name])
    mask = lone.parameters.pruning_mask[0]
    row = lone.initial.clone().requires_grad_()
    net, losses = plain(tiny_bert, lone, lone.state.batch()[1], row=row)
    torch.stack(losses).mean().backward()
    lone.engine.step()
    named = {key: p for key, p in net.named_parameters() if p.grad is not None}
    entries = {e.name.removeprefix("backbone."): e for e in lone.layout.entries}
    for key, p in named.items():
        if masked_first:
            e = entries[key]
            p.grad.mul_(mask[e.start : e.stop].view(p.shape))
    norm = torch.cat([p.grad.flatten() for p in named.values()] + [row.grad]).norm()
    for key, p in named.items():
        e = entries[key]
        expected = p.grad.flatten() * (0.05 / norm) * mask[e.start : e.stop]
        ours = lone.parameters.moments[0, 0, e.start : e.stop] / 0.1
        assert torch.allclose(ours, expected, rtol=1e-3, atol=1e-7), key
    assert norm > 0.1, "the clip acts"


def test_dropout_acts_while_child_tuning_d_scores(tiny_bert):
    masks = []
    for dropout in (0.0, 0.3):
        recipe = Recipe(epochs=2, dropout=dropout)
        masks.append(LoneTrial(tiny_bert, "child_tuning_d", make_data(), recipe=recipe).parameters.pruning_mask)
    assert int(masks[0].sum()) == int(masks[1].sum())
    assert not torch.equal(*masks)


@pytest.mark.parametrize("family", ["bert", "distilbert", "llama"])
@pytest.mark.parametrize("method", ["fish_mask", "child_tuning_d"])
def test_what_a_mask_keeps_out_stays_bit_for_bit_under_weight_decay(method, family, tiny_model):
    recipe = Recipe(epochs=2, patience=9, weight_decay=0.5)
    lone = LoneTrial(tiny_model(family), method, make_data(), recipe=recipe, lr=1e-2, **SMALL[method])
    assert torch.equal(lone.parameters.values[0], lone.initial)
    mask = lone.parameters.pruning_mask[0].clone()
    parameters = lone.epochs(2)
    assert torch.equal(parameters.pruning_mask[0], mask)
    assert torch.equal(parameters.values[0][~mask], lone.initial[~mask])
    assert (parameters.values[0] != lone.initial)[mask].float().mean() > 0.5
    assert not (parameters.moments[:, 0, ~mask] != 0).any()


def test_a_mask_decays_what_it_keeps_as_the_kernel_does(tiny_bert):
    """With everything kept, a step of a masked trial is one of full fine-tuning."""
    recipe = Recipe(epochs=1, weight_decay=0.5, warmup=0.0)
    full, masked = (
        LoneTrial(tiny_bert, m, make_data(), recipe=recipe, lr=1e-2, **s)
        for m, s in (("full", {}), ("fish_mask", {"keep": 1.0, "examples": 4}))
    )
    for lone in (full, masked):
        lone.engine.step()
    assert torch.allclose(full.parameters.values, masked.parameters.values, atol=1e-6)
    assert not torch.allclose(full.parameters.values, full.initial * (1 - 0.5 * 1e-2), atol=1e-6)


@pytest.mark.parametrize("name", ["fish_mask", "child_tuning_d"])
def test_scoring_leaves_no_gradient_behind(name, tiny_bert):
    assert not LoneTrial(tiny_bert, name, make_data(), **SMALL[name]).parameters.leaf.grad.any()


def test_child_tuning_f_uses_a_fresh_share_of_the_gradients_scaled_up(tiny_bert):
    """After one step Adam's first moment is (1 - beta1) times the gradient that it was given; Full is the dense reference."""
    recipe = Recipe(epochs=2, clip=1e9)
    dense, thin = (LoneTrial(tiny_bert, m, make_data(), recipe=recipe) for m in ("full", "child_tuning_f"))
    seen = []
    for lone in (dense, thin):
        lone.engine.step()
        seen.append(lone.parameters.moments[0, 0].clone())
    used = seen[1] != 0
    assert torch.allclose(seen[1][used], seen[0][used] / 0.3, rtol=1e-5)
    assert float(used[seen[0] != 0].float().mean()) == pytest.approx(0.3, abs=0.01)
    before = thin.parameters.moments[0, 0].clone()
    thin.engine.step()
    again = (thin.parameters.moments[0, 0] - 0.9 * before).abs() > 1e-9
    there = seen[0] != 0
    assert float((used & again)[there].float().mean()) == pytest.approx(0.09, abs=0.03)


def test_a_share_of_one_is_full_fine_tuning_bit_for_bit(tiny_bert):
    rows = [
        LoneTrial(tiny_bert, m, make_data(), **s).epochs(2).values
        for m, s in (("full", {}), ("child_tuning_f", {"keep": 1.0}))
    ]
    assert torch.equal(*rows)


@pytest.mark.parametrize("after", [1, 2, 3])
@pytest.mark.parametrize("method", PART)
def test_a_trial_read_from_disk_continues_bit_for_bit(method, after, tiny_bert, tmp_path):
    recipe, data = Recipe(epochs=4, patience=9), make_data()
    lone = LoneTrial(tiny_bert, method, data, recipe=recipe, **SMALL[method])
    lone.epochs(after)
    state, tensors = lone.engine.state(lone.trial.id)
    saved = checkpoint.Checkpoint(epoch=state.epoch, done=False, progress=state.progress, tensors=tensors)
    checkpoint.write(tmp_path / "trial", lone.trial, saved)
    lone.epochs(4 - after)

    saved, engine = checkpoint.read(tmp_path / "trial", lone.trial), Engine(Backbone.load(tiny_bert, CPU))
    resumed = engine.restore(lone.trial, data, saved.tensors, saved.epoch, saved.progress)
    assert engine.counts(lone.trial.id) == lone.engine.counts(lone.trial.id)
    while not resumed.done:
        engine.step()
    assert [p.loss for p in resumed.progress] == [p.loss for p in lone.state.progress]
    assert torch.equal(resumed.best, lone.state.best)
    assert torch.equal(engine.find(lone.trial.id)[0].parameters.values, lone.parameters.values)
    assert engine.test(lone.trial.id).predictions == lone.engine.test(lone.trial.id).predictions


@pytest.mark.parametrize("number", [0, 1, 3, 5, 6])
def test_a_cut_is_exact_and_the_later_of_equal_scores_stays(number):
    scores = torch.tensor([2.0, 1.0, 2.0, 2.0, 0.0, 3.0])
    order = torch.sort(scores, stable=True).indices[6 - number :]
    expected = torch.zeros(6, dtype=torch.bool)
    expected[order] = True
    assert torch.equal(_highest(scores, number), expected)


def test_a_plan_of_one_epoch_is_refused_for_methods_of_two_phases():
    def plan(epochs):
        space = Space(
            name="made-up",
            models=("roberta-base",),
            tasks=("agreement",),
            methods=(method("lt_sft"),),
            search={"lr": choice(1e-5), "batch_size": choice(8)},
            recipe=Recipe(epochs=epochs),
        )
        return make_plan(space, RunOptions())

    assert plan(2).trials
    with pytest.raises(ValueError, match="method 'lt_sft' on roberta-base: epochs = 1: must be at least 2"):
        plan(1)
