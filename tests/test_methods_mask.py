"""What the cards of the mask and freezing families promise, held against plain transformers models and dense formulas."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import transformers
from conftest import make_data, make_trial
from method_settings import SMALL
from test_methods import BERT, CPU, ROBERTA

from orchestrator.plan import Overrides, make_plan
from search_spaces.language import Recipe, Space, choice, method
from trainables import checkpoint
from trainables.backbone import Backbone
from trainables.counting import build, count
from trainables.engine import Engine
from trainables.layout import Layout
from trainables.methods.contract import Values
from trainables.packing import pack
from trainables.pruning import _highest, contenders
from trainables.running import RunningPass, Segment, losses_of
from trainables.seeds import permutation

MASKS = ("fish_mask", "child_tuning_d", "lt_sft", "diff_pruning")
PART = ("top_layers", "threshold_mask", *MASKS, "child_tuning_f")

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


def test_what_is_stored_is_the_mask_in_bits_or_the_values_that_differ():
    assert build("threshold_mask", {}).stored(BERT) == 85_524_480 / 32
    assert build("fish_mask", {}).stored(BERT) == 547_411
    assert build("diff_pruning", {}).stored(BERT) == 547_411
    assert build("lt_sft", {}).stored(BERT) == 1_094_822
    assert build("child_tuning_f", {}).stored(BERT) == 109_482_240


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
        Engine(Backbone.load(tiny_bert, CPU)).join(make_trial(method, recipe=Recipe(epochs=1)), make_data())


class Seat:
    """A trial in an engine of its own, and what it started from."""

    def __init__(self, model, method, data, recipe=None, lr=1e-3, **settings):
        self.engine, self.data = Engine(Backbone.load(model, CPU)), data
        self.trial = make_trial(method, lr=lr, recipe=recipe or Recipe(epochs=4, patience=9), **settings)
        pristine = Backbone.load(model, CPU)
        self.layout = Layout(build(method, settings, model.shape), pristine, data.task.outputs)
        self.start = self.layout.initial(self.trial.seed, pristine)
        self.slot = self.engine.join(self.trial, data)

    @property
    def group(self):
        return self.engine._find(self.trial.id)[0].group

    def of(self, row, name):
        e = next(e for e in self.layout.entries if e.name == name)
        return row[e.start : e.stop].view(e.shape)

    def epochs(self, number):
        for _ in range(number):
            while not self.engine.step():
                pass
        return self.group

    def loss(self, chosen):
        """The mean loss of some training examples, without dropout."""
        rows, segment = (
            pack([(self.data.train, chosen)], self.engine.backbone.shape.heads, CPU),
            Segment(self.group, 0, 1),
        )
        return losses_of(
            RunningPass(self.engine.backbone, [segment], rows, None).logits()[0], rows, segment, False
        ).sum()


def plain(model, seat, chosen, row=None, weights=None):
    """(model, losses) of examples by transformers alone, one by one; `weights` replace the encoder's, `row` holds the head."""
    row = seat.start if row is None else row
    net = transformers.BertModel.from_pretrained(model.path, attn_implementation="eager").eval()
    if weights:
        net.load_state_dict({**net.state_dict(), **weights})
    losses, split = [], seat.data.train
    for i in chosen:
        ids = torch.from_numpy(split.ids[split.offsets[i] : split.offsets[i + 1]].astype(np.int64))[None]
        logits = net(input_ids=ids).pooler_output @ seat.of(row, "head.out") + seat.of(row, "head.out_bias")
        losses.append(F.cross_entropy(logits, torch.tensor([int(split.labels[i])])))
    return net, losses


def test_top_layers_move_and_nothing_below_does(tiny_bert):
    seat = Seat(tiny_bert, "top_layers", make_data(), k=1)
    before = {n: p.detach().clone() for n, p in seat.engine.backbone.module.named_parameters()}
    seat.epochs(1)
    moved = {n for n, p in seat.engine.backbone.module.named_parameters() if not torch.equal(p, before[n])}
    assert moved == {n for n in before if n.startswith(("encoder.layer.1.", "pooler."))}


def test_gradients_of_the_top_layers_are_those_of_a_plain_model(tiny_bert):
    seat = Seat(tiny_bert, "top_layers", make_data(), k=1)
    seat.loss(np.arange(4)).backward()
    net, losses = plain(tiny_bert, seat, range(4))
    torch.stack(losses).mean().backward()
    for name, parameter in net.named_parameters():
        if name.startswith(("encoder.layer.1.", "pooler.")):
            assert torch.allclose(seat.of(seat.group.leaf.grad[0], f"backbone.{name}"), parameter.grad, atol=1e-6)


def test_a_threshold_mask_is_the_masked_model_with_gradients_straight_through(tiny_bert):
    """Oracle: dense products W * 1[m > tau] in a plain model; dL/dm = W * dL/dW'."""
    seat = Seat(tiny_bert, "threshold_mask", make_data(), masked=0.2)
    row, chosen = seat.group.values[0].clone(), np.arange(4)
    pristine = dict(transformers.BertModel.from_pretrained(tiny_bert.path).named_parameters())
    scored = [e.name.removeprefix("backbone.").removesuffix(".score") for e in contenders(seat.layout)]
    assert sum(name.startswith("encoder.layer.") for name in scored) == 12
    assert "pooler.dense.weight" in scored
    weights = {n: pristine[n].data * (seat.of(row, f"backbone.{n}.score") > 0.01) for n in scored}
    net, losses = plain(tiny_bert, seat, chosen, row, weights)
    torch.stack(losses).mean().backward()
    loss = seat.loss(chosen)
    loss.backward()
    seat.group.collect()
    assert loss.item() == pytest.approx(torch.stack(losses).mean().item(), abs=1e-5)
    gradients = {n: p.grad for n, p in net.named_parameters()}
    for name in scored:
        ours = seat.of(seat.group.leaf.grad[0], f"backbone.{name}.score")
        assert torch.allclose(ours, pristine[name] * gradients[name], atol=1e-6)
    out = torch.cat([(seat.of(row, f"backbone.{n}.score") <= 0.01).flatten() for n in scored]).float().mean()
    assert float(out) == pytest.approx(0.2, abs=0.01)


def test_threshold_scores_do_not_decay_and_the_pretrained_weights_stay(tiny_bert):
    still = Recipe(epochs=1, weight_decay=0.5, warmup=0.0)
    seat = Seat(tiny_bert, "threshold_mask", make_data(), recipe=still, lr=1e-3)
    assert not any(e.decayed for e in seat.layout.entries if e.name.endswith(".score"))
    before = {n: w.clone() for n, (_, w, _) in seat.group.own._computed.items()}
    seat.epochs(1)
    assert all(torch.equal(w, before[n]) for n, (_, w, _) in seat.group.own._computed.items())


def test_fish_keeps_the_largest_sums_of_squared_single_gradients(tiny_bert):
    """Oracle: a plain model, one backward per example."""
    seat = Seat(tiny_bert, "fish_mask", make_data(train=24), keep=0.02, examples=24)
    net, losses = plain(tiny_bert, seat, range(24))
    fisher = {n: torch.zeros_like(p) for n, p in net.named_parameters()}
    for loss in losses:
        net.zero_grad()
        loss.backward()
        for name, parameter in net.named_parameters():
            fisher[name] += parameter.grad.square()
    entries = contenders(seat.layout)
    ours = torch.cat([seat.group.keep[0, e.start : e.stop] for e in entries])
    theirs = torch.cat([fisher[e.name.removeprefix("backbone.")].flatten() for e in entries])
    number = len(theirs) * 2 // 100
    assert int(ours.sum()) == number
    assert (ours == _highest(theirs, number)).float().mean() > 0.9995  # ties within rounding
    assert theirs[ours].min() >= 0.99 * theirs[~ours].max()


def test_child_tuning_d_sums_squares_of_clipped_batch_gradients(tiny_bert):
    """Oracle: a plain model on the same batches, dropout at 0."""
    recipe, data = Recipe(epochs=2, dropout=0.0, clip=0.05), make_data(train=24)
    seat = Seat(tiny_bert, "child_tuning_d", data, recipe=recipe)
    order, fisher = permutation(24, seat.trial.seed, "scoring"), {}
    for start in (0, 8, 16):
        net, losses = plain(tiny_bert, seat, order[start : start + 8])
        torch.stack(losses).mean().backward()
        for name, p in net.named_parameters():
            torch.nn.utils.clip_grad_norm_([p], 0.05)
            fisher[name] = fisher.get(name, 0) + p.grad.square()
    entries = contenders(seat.layout)
    assert {e.name.split(".")[1] for e in entries} == {"encoder"}
    ours = torch.cat([seat.group.keep[0, e.start : e.stop] for e in entries])
    theirs = torch.cat([fisher[e.name.removeprefix("backbone.")].flatten() for e in entries])
    assert int(ours.sum()) == int(0.3 * len(theirs))
    assert (ours == _highest(theirs, int(ours.sum()))).float().mean() > 0.999
    free = [e for e in seat.layout.entries if e not in entries]
    assert all(seat.group.keep[0, e.start : e.stop].all() for e in free)


def test_dropout_acts_while_child_tuning_d_scores(tiny_bert):
    masks = []
    for dropout in (0.0, 0.3):
        recipe = Recipe(epochs=2, dropout=dropout)
        masks.append(Seat(tiny_bert, "child_tuning_d", make_data(), recipe=recipe).group.keep)
    assert int(masks[0].sum()) == int(masks[1].sum())
    assert not torch.equal(*masks)


@pytest.mark.parametrize("method", ["fish_mask", "child_tuning_d"])
def test_what_a_mask_keeps_out_stays_bit_for_bit_under_weight_decay(method, tiny_bert):
    recipe = Recipe(epochs=2, patience=9, weight_decay=0.5)
    seat = Seat(tiny_bert, method, make_data(), recipe=recipe, lr=1e-2, **SMALL[method])
    assert torch.equal(seat.group.values[0], seat.start)
    keep = seat.group.keep[0].clone()
    group = seat.epochs(2)
    assert torch.equal(group.keep[0], keep)
    assert torch.equal(group.values[0][~keep], seat.start[~keep])
    assert (group.values[0] != seat.start)[keep].float().mean() > 0.5
    assert not (group.moments[:, 0, ~keep] != 0).any()


def test_a_mask_decays_what_it_keeps_as_the_kernel_does(tiny_bert):
    """With everything kept, a step of a masked trial is one of full fine-tuning."""
    recipe = Recipe(epochs=1, weight_decay=0.5, warmup=0.0)
    full, masked = (
        Seat(tiny_bert, m, make_data(), recipe=recipe, lr=1e-2, **s)
        for m, s in (("full", {}), ("fish_mask", {"keep": 1.0, "examples": 4}))
    )
    for seat in (full, masked):
        seat.engine.step()
    assert torch.allclose(full.group.values, masked.group.values, atol=1e-6)
    assert not torch.allclose(full.group.values, full.start * (1 - 0.5 * 1e-2), atol=1e-6)


@pytest.mark.parametrize("name", ["fish_mask", "child_tuning_d"])
def test_scoring_leaves_no_gradient_behind(name, tiny_bert):
    assert not Seat(tiny_bert, name, make_data(), **SMALL[name]).group.leaf.grad.any()


def test_child_tuning_f_uses_a_fresh_share_of_the_gradients_scaled_up(tiny_bert):
    """After one step Adam's first moment is (1 - beta1) times the gradient that it was given; Full is the dense reference."""
    recipe = Recipe(epochs=2, clip=1e9)
    dense, thin = (Seat(tiny_bert, m, make_data(), recipe=recipe) for m in ("full", "child_tuning_f"))
    seen = []
    for seat in (dense, thin):
        seat.engine.step()
        seen.append(seat.group.moments[0, 0].clone())
    used = seen[1] != 0
    assert torch.allclose(seen[1][used], seen[0][used] / 0.3, rtol=1e-5)
    assert float(used[seen[0] != 0].float().mean()) == pytest.approx(0.3, abs=0.01)
    before = thin.group.moments[0, 0].clone()
    thin.engine.step()
    again = (thin.group.moments[0, 0] - 0.9 * before).abs() > 1e-9
    there = seen[0] != 0
    assert float((used & again)[there].float().mean()) == pytest.approx(0.09, abs=0.03)


def test_a_share_of_one_is_full_fine_tuning_bit_for_bit(tiny_bert):
    rows = [
        Seat(tiny_bert, m, make_data(), **s).epochs(2).values
        for m, s in (("full", {}), ("child_tuning_f", {"keep": 1.0}))
    ]
    assert torch.equal(*rows)


def test_the_first_phase_of_lt_sft_is_full_fine_tuning_of_half_the_epochs(tiny_bert):
    half = Seat(tiny_bert, "full", make_data(), recipe=Recipe(epochs=2, patience=9))
    seat = Seat(tiny_bert, "lt_sft", make_data(), recipe=Recipe(epochs=4, patience=9), keep=0.1)
    half.epochs(2)
    seat.epochs(1)
    seat_values = []
    while not seat.slot.epoch_is_over:
        seat.engine._train([seat.slot])
        seat_values = seat.group.values.clone()
    assert torch.equal(seat_values, half.group.values)
    seat.epochs(1)
    assert [p.loss for p in seat.slot.progress] == [p.loss for p in half.slot.progress]

    change = (half.group.values[0] - seat.start).abs()
    backbone = torch.cat([torch.arange(e.start, e.stop) for e in contenders(seat.layout)])
    number = int(0.1 * len(backbone))
    bound = change[backbone].sort(descending=True).values[number - 1]
    assert int(seat.group.keep[0, backbone].sum()) == number
    assert (change[backbone][seat.group.keep[0, backbone]] >= bound).all()
    assert torch.equal(seat.group.values[0], seat.start)
    assert torch.equal(seat.slot.best, seat.start)
    assert not seat.group.moments.any()


def test_the_second_phase_has_a_schedule_and_a_best_epoch_of_its_own(tiny_bert):
    seat = Seat(tiny_bert, "lt_sft", make_data(), recipe=Recipe(epochs=5, patience=1, warmup=0.5), keep=0.2)
    paces = []
    while not seat.slot.done:
        paces.append((seat.slot.epoch, seat.slot.pace()))
        seat.engine.step()
    assert seat.slot.turn == 2
    second = [pace for epoch, pace in paces if epoch >= 2]
    assert second[0] == pytest.approx(1 / 8)  # 15 steps, the first half of them rising
    assert [p for e, p in paces if e < 2][-1] == pytest.approx(1 / 5)  # 10 steps, the last five falling
    progress = seat.slot.progress
    assert len(progress) >= 3, "a first phase without progress must not end the trial"
    assert progress[2].best_epoch == 3
    assert progress[2].best_score == progress[2].score
    if seat.slot.end_reason == "patience":
        assert progress[-1].epoch - progress[-1].best_epoch == 1


@pytest.mark.parametrize("method", ["lt_sft", "diff_pruning"])
def test_what_two_phases_leave_differs_in_no_more_than_the_kept_entries(method, tiny_bert):
    seat = Seat(
        tiny_bert, method, make_data(), lr=3e-3, keep=0.05, recipe=Recipe(epochs=4, patience=9, weight_decay=0.1)
    )
    pristine = {n: p.detach().clone() for n, p in Backbone.load(tiny_bert, CPU).module.named_parameters()}
    number = int(0.05 * sum(p.numel() for p in pristine.values()))
    seat.epochs(2)
    assert torch.equal(seat.slot.best, seat.group.values[0])
    seat.epochs(2)
    seat.group.values.copy_(seat.slot.best)
    seat.loss(np.arange(2))
    differing = sum(int((p != pristine[n]).sum()) for n, p in seat.engine.backbone.module.named_parameters())
    assert 0.5 * number < differing <= number


def test_a_first_phase_that_diverges_leaves_the_start(tiny_bert):
    seat = Seat(tiny_bert, "lt_sft", make_data(), lr=1e30, keep=0.1, recipe=Recipe(epochs=6))
    while not seat.slot.done:
        seat.engine.step()
    assert seat.slot.end_reason == "diverged"
    assert seat.slot.epoch <= 3
    assert (seat.slot.progress[-1].best_epoch, seat.slot.progress[-1].best_score) == (0, 0.0)
    assert torch.equal(seat.slot.best, seat.start)


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
    seat = Seat(tiny_bert, "diff_pruning", make_data(), structured=False)
    generator = torch.Generator().manual_seed(0)
    for e in seat.layout.entries:
        if e.name.startswith("backbone."):
            scale = 0.01 if e.name.endswith("delta") else 0.5
            seat.group.values[0, e.start : e.stop] = scale * torch.randn(e.size, generator=generator)
    row, chosen = seat.group.values[0].clone(), np.arange(3)
    pristine = dict(transformers.BertModel.from_pretrained(tiny_bert.path).named_parameters())
    s = {n: torch.sigmoid(seat.of(row, f"backbone.{n}.alpha")) for n in pristine}
    z = {n: (3 * s[n] - 1.5).clamp(0, 1) for n in pristine}
    delta = {n: seat.of(row, f"backbone.{n}.delta") for n in pristine}
    net, losses = plain(tiny_bert, seat, chosen, row, {n: p.data + z[n] * delta[n] for n, p in pristine.items()})
    torch.stack(losses).mean().backward()
    loss = seat.loss(chosen)
    loss.backward()
    seat.group.collect()
    assert loss.item() == pytest.approx(torch.stack(losses).mean().item(), abs=1e-5)
    for name, p in net.named_parameters():
        inside = (3 * s[name] - 1.5 > 0) & (3 * s[name] - 1.5 < 1)
        by_alpha = p.grad * delta[name] * 3 * s[name] * (1 - s[name]) * inside
        assert torch.allclose(seat.of(seat.group.leaf.grad[0], f"backbone.{name}.delta"), p.grad * z[name], atol=1e-5)
        assert torch.allclose(seat.of(seat.group.leaf.grad[0], f"backbone.{name}.alpha"), by_alpha, atol=1e-5)


def test_the_price_of_open_gates_closes_them_and_is_not_reported(tiny_bert):
    mean = {}
    for l0 in (0.0, 1e-3):
        seat = Seat(tiny_bert, "diff_pruning", make_data(), recipe=Recipe(epochs=4, patience=9, warmup=0.0), l0=l0)
        gates = [e for e in seat.layout.entries if e.name.endswith(".alpha")]
        while not seat.slot.epoch_is_over:
            seat.engine._train([seat.slot])
        mean[l0] = torch.cat([seat.group.values[0, e.start : e.stop] for e in gates]).mean()
        seat.engine.step()
        assert seat.slot.progress[0].loss < 2
    assert mean[1e-3] < mean[0.0] - 0.3


def test_a_settled_difference_ignores_noise_and_gates_no_longer_move(tiny_bert):
    seat = Seat(tiny_bert, "diff_pruning", make_data(), lr=3e-3, keep=0.05)
    group = seat.epochs(2)
    weights = []
    for noise in (None, 1, 2):
        group.own.open(noise)
        weights.append(torch.cat([p.detach().flatten() for p in seat.engine.backbone.module.parameters()]))
    assert torch.equal(weights[0], weights[1])
    assert torch.equal(weights[0], weights[2])
    gates = [e for e in seat.layout.entries if "alpha" in e.name]
    before = group.values.clone()
    seat.epochs(1)
    for e in gates:
        assert torch.equal(group.values[0, e.start : e.stop], before[0, e.start : e.stop])


@pytest.mark.parametrize("after", [1, 2, 3])
@pytest.mark.parametrize("method", PART)
def test_a_trial_read_from_disk_continues_bit_for_bit(method, after, tiny_bert, tmp_path):
    recipe, data = Recipe(epochs=4, patience=9), make_data()
    seat = Seat(tiny_bert, method, data, recipe=recipe, **SMALL[method])
    seat.epochs(after)
    slot, tensors = seat.engine.state(seat.trial.id)
    state = checkpoint.Checkpoint(epoch=slot.epoch, done=False, progress=slot.progress, tensors=tensors)
    checkpoint.write(tmp_path / "trial", seat.trial, state)
    seat.epochs(4 - after)

    saved, engine = checkpoint.read(tmp_path / "trial", seat.trial), Engine(Backbone.load(tiny_bert, CPU))
    resumed = engine.restore(seat.trial, data, saved.tensors, saved.epoch, saved.progress)
    assert engine.counts(seat.trial.id) == seat.engine.counts(seat.trial.id)
    while not resumed.done:
        engine.step()
    assert [p.loss for p in resumed.progress] == [p.loss for p in seat.slot.progress]
    assert torch.equal(resumed.best, seat.slot.best)
    assert torch.equal(engine._find(seat.trial.id)[0].group.values, seat.group.values)
    assert engine.test(seat.trial.id).predictions == seat.engine.test(seat.trial.id).predictions


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
        return make_plan(space, Overrides(), None)

    assert plan(2).trials
    with pytest.raises(ValueError, match="method 'lt_sft' on roberta-base: epochs = 1: must be at least 2"):
        plan(1)
