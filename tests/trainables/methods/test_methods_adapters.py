"""The adapter family and ProPETL against second formulas, beside others, in a fresh process, and what each card promises."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from search_spaces.language import Recipe
from tests.fixtures.plain_adapters import PlainAdapters
from tests.fixtures.trials import make_data, make_trial
from tests.trainables.methods.test_methods import BERT, ROBERTA
from tests.trainables.training.test_engine_equality import losses, train
from trainables.backbone.backbone import Backbone
from trainables.backbone.packing import pack
from trainables.methods.houlsby_variant import VARIANTS
from trainables.training.engine import Engine
from trainables.training.forward_pass import ForwardPass
from trainables.training.parameter_counts import build, count
from trainables.training.segments import Segment
from trainables.training.training_step import backward, compute, draw
from trainables.worker import checkpoint

CPU = torch.device("cpu")
CASES = [
    ("pfeiffer", {"r": 4}),
    ("parallel", {"r": 4, "scale": 4.0}),
    ("parallel", {"r": 4, "scale": 2, "beside": "attention"}),
    ("parallel", {"r": 4, "scale": "learned", "beside": "both"}),
    *(("houlsby_variant", {"r": 4, "variant": variant}) for variant in VARIANTS),
    ("adapter_drop", {"r": 4, "dropped": 1}),
    ("adapter_drop_robust", {"r": 4}),
    ("compacter", {"r": 8, "n": 4}),
    ("compacter", {"r": 6, "n": 2}),
    ("compacter_pp", {"r": 8, "n": 4}),
    ("propetl", {"r": 4, "share": 0.5}),
    ("propetl", {"r": 4, "share": 0.2}),
]
NAMES = ["-".join([method, *(str(v) for v in settings.values())]) for method, settings in CASES]
QUIET = Recipe(epochs=3, patience=9, dropout=0.0)


def prepare(model, method, settings, data, recipe=QUIET, **more):
    engine, trial = Engine(Backbone.load(model, CPU)), make_trial(method, recipe=recipe, **more, **settings)
    state = engine.add_trial(trial, data)
    return engine, state, engine.find(trial.id)[0]


def stir(parameters):
    """Away from zeros and ones, so that every parameter matters; variances stay positive."""
    generator = torch.Generator().manual_seed(0)
    parameters.values.add_(0.2 * torch.randn(parameters.values.shape, generator=generator))
    for e in parameters.layout.entries:
        if e.name.endswith("variance"):
            parameters.values[:, e.start : e.stop].abs_().add_(0.5)


def leaves(parameters):
    """The only trial's tensors as leaves of a graph."""
    parts = {e.name: parameters.values[0, e.start : e.stop].view(e.shape) for e in parameters.layout.entries}
    return {name: part.clone().requires_grad_() for name, part in parts.items()}


def gradient(values, parameters):
    """[P], zeros where there is none."""
    grads = [values[e.name].grad for e in parameters.layout.entries]
    return torch.cat(
        [
            torch.zeros(e.size) if g is None else g.flatten()
            for g, e in zip(grads, parameters.layout.entries, strict=True)
        ]
    )


@pytest.mark.parametrize(("method", "settings"), CASES, ids=NAMES)
@pytest.mark.parametrize("family", ["tiny_bert", "tiny_roberta"])
def test_logits_and_gradients_are_those_of_the_second_formula(family, method, settings, request):
    model, data = request.getfixturevalue(family), make_data(seed=3)
    engine, state, stack = prepare(model, method, settings, data)
    parameters = stack.parameters
    stir(parameters)
    values = leaves(parameters)
    plain = PlainAdapters(model, method, settings, values)
    rows = pack([state.batch()], model.shape.heads, CPU)

    evaluated = Segment(parameters, 0, 1, step_inputs=stack.eval_inputs(engine.backbone, 1))
    ours = ForwardPass(engine.backbone, [evaluated], rows, None).logits()[0][0]
    assert torch.allclose(ours, plain.logits(*state.batch()), atol=1e-5)

    plain.training = True
    if method == "adapter_drop_robust":
        plain.dropped = int(stack.sample_step_inputs(engine.backbone)["dropped"])
    loss = plain.loss(*state.batch())
    loss.backward()
    ours = backward([stack], engine.backbone, draw([stack], engine.backbone))[0][0]
    assert ours.item() == pytest.approx(loss.item(), abs=1e-5)
    trained = torch.cat([torch.full((e.size,), e.parameter.trained) for e in parameters.layout.entries])
    theirs = gradient(values, parameters)[trained]
    assert torch.allclose(parameters.leaf.grad[0, trained], theirs, atol=1e-5, rtol=1e-4)
    assert theirs.abs().max() > 1e-3


@pytest.mark.parametrize(
    ("method", "settings"),
    [
        ("houlsby_variant", {"r": 4, "variant": "batch_norm"}),
        ("adapter_drop_robust", {"r": 4}),
        ("compacter", {"r": 8, "n": 4}),
        ("propetl", {"r": 4, "share": 0.5, "mask_lr": 2e-2}),
    ],
)
def test_training_is_that_of_torch_with_the_second_formula(method, settings, tiny_bert):
    """Rates of their own, no decay of scores and vectors, running statistics that only the batches move."""
    data, recipe = make_data(seed=3), Recipe(epochs=2, dropout=0.0, weight_decay=0.5)
    engine, state, stack = prepare(tiny_bert, method, settings, data, recipe, lr=2e-3)
    parameters = stack.parameters
    stir(parameters)
    values = leaves(parameters)
    plain = PlainAdapters(tiny_bert, method, settings, values)
    plain.training = True
    own_rate = {name: settings.get("mask_lr", 0) if name.endswith("scores") else 2e-3 for name in values}
    still = {name for name in values if name.endswith("scores") or values[name].ndim == 1}
    trained = {name: v for name, v in values.items() if "running" not in name}
    adam = torch.optim.AdamW(
        [{"params": [v], "weight_decay": 0.0 if name in still else 0.5} for name, v in trained.items()]
    )
    for _ in range(8):
        for param, name in zip(adam.param_groups, trained, strict=True):
            param["lr"] = own_rate[name] * state.lr_scale()
        if method == "adapter_drop_robust":
            plain.dropped = int(stack.sample_step_inputs(engine.backbone)["dropped"])
        adam.zero_grad()
        plain.loss(*state.batch()).backward()
        for v in trained.values():
            v.grad = torch.zeros_like(v) if v.grad is None else v.grad
        torch.nn.utils.clip_grad_norm_(trained.values(), 1.0)
        adam.step()
        engine.step()
    for e in parameters.layout.entries:
        ours = parameters.values[0, e.start : e.stop].view(e.shape)
        assert torch.allclose(ours, values[e.name].detach(), atol=1e-4), e.name


def trials_of_all_cases(recipe):
    return [
        make_trial(method, seed=i, lr=3e-3, batch_size=8 if i % 2 else 16, recipe=recipe, **settings)
        for i, (method, settings) in enumerate(CASES)
    ]


def test_all_of_them_together_are_each_as_alone(tiny_bert):
    recipe = Recipe(epochs=2, patience=9)
    trials = trials_of_all_cases(recipe)
    twin = make_trial("houlsby_variant", seed=77, recipe=recipe, r=4, variant="batch_norm")
    trials.append(twin)  # is stacked with another, whose rows are longer
    outputs = [3 if trial.method.startswith("compacter") else 2 for trial in trials]
    data = [make_data(seed=i, train=24, outputs=n, high=8 + 3 * (i % 4)) for i, n in enumerate(outputs)]
    together = train(tiny_bert, trials, data)
    for trial, own, state in zip(trials, data, together, strict=True):
        alone = train(tiny_bert, [trial], [own])[0]
        assert losses(state) == pytest.approx(losses(alone), abs=2e-6)
        # Adam makes a whole step of a first gradient, even of one that is rounding alone (seen: 4e-10): a few entries may differ.
        assert ((state.best - alone.best).abs() > 2e-5).float().mean() < 0.01
        assert [p.score for p in state.progress] == [p.score for p in alone.progress]


def one_trial_per_method():
    cases = {method: trial for (method, _), trial in zip(CASES, trials_of_all_cases(QUIET), strict=True)}
    normalised = next(t for t in trials_of_all_cases(QUIET) if t.settings.get("variant") == "batch_norm")
    return [*cases.values(), normalised]


def logits_of(engine, state):
    stack, _ = engine.find(state.trial.id)
    rows = pack([(state.data.test, np.arange(len(state.data.test)))], engine.backbone.shape.heads, CPU)
    segment = Segment(stack.parameters, 0, 1, step_inputs=stack.eval_inputs(engine.backbone, 1))
    return ForwardPass(engine.backbone, [segment], rows, None).logits()[0][0]


def write_logits_of_checkpoints(path, folder):
    """The other process: read every trial's checkpoint and write its logits, bit by bit."""
    from trainables.backbone.models import resolve

    torch.set_num_threads(1)
    backbone, folder, found = Backbone.load(resolve(path), CPU), Path(folder), []
    for i, trial in enumerate(one_trial_per_method()):
        engine, saved = Engine(backbone), checkpoint.read(folder / str(i), trial)
        state = engine.restore(trial, make_data(), saved.tensors, saved.epoch, saved.progress)
        found.append(logits_of(engine, state).detach().numpy().tobytes().hex())
    (folder / "found").write_text("\n".join(found))


def test_a_fresh_process_reads_what_was_saved(tiny_bert, tmp_path):
    backbone, expected = Backbone.load(tiny_bert, CPU), []
    for i, trial in enumerate(one_trial_per_method()):
        engine = Engine(backbone)
        state = engine.add_trial(trial, make_data())
        while not engine.step():
            pass
        tensors = engine.state(trial.id)[1]
        record = checkpoint.Checkpoint(epoch=1, done=False, progress=state.progress, tensors=tensors)
        checkpoint.write(tmp_path / str(i), trial, record)
        expected.append(logits_of(engine, state).detach().numpy().tobytes().hex())
    code = f"import {__name__} as t; t.write_logits_of_checkpoints({str(tiny_bert.path)!r}, {str(tmp_path)!r})"
    paths = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[3])])
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "found").read_text().split() == expected


COUNTS = [
    ("pfeiffer", {"r": 64}, 1_189_632),
    ("pfeiffer", {"r": 48}, 894_528),
    ("parallel", {"r": 64}, 1_189_632),
    ("parallel", {"r": 384}, 7_091_712),
    ("parallel", {"r": 64, "beside": "attention"}, 1_189_632),
    ("parallel", {"r": 64, "beside": "both", "scale": "learned"}, 2_379_264 + 24),
    ("houlsby_variant", {"variant": "norm_input"}, 2_379_264 + 24 * 1_536),
    ("houlsby_variant", {"variant": "norm_bottleneck"}, 2_379_264 + 24 * 128),
    ("houlsby_variant", {"variant": "batch_norm"}, 2_379_264 + 24 * 128),
    ("houlsby_variant", {"variant": "extra_layers", "extra": 3}, 2_379_264 + 24 * 3 * 4_160),
    ("houlsby_variant", {"variant": "tanh"}, 2_379_264),
    ("houlsby_variant", {"variant": "multiplicative"}, 2_379_264),
    ("houlsby_variant", {"variant": "attention_only"}, 1_189_632),
    ("houlsby_variant", {"variant": "ffn_only"}, 1_189_632),
    ("adapter_drop", {"r": 64, "dropped": 5}, 7 * 99_136),
    ("adapter_drop_robust", {"r": 64}, 1_189_632),
    ("compacter", {}, 57_088),
    ("compacter_pp", {}, 28_576),
    ("propetl", {}, 99_136 + 1_179_648),
]


@pytest.mark.parametrize(("method", "settings", "module"), COUNTS)
def test_counts_on_base_encoders_are_those_of_the_cards(method, settings, module):
    norms = 38_400 if method == "houlsby_variant" else 0
    for shape in (BERT, ROBERTA):
        counts = count(build(method, settings, shape), shape, 2)
        assert counts.module == module
        assert counts.trained == module + norms + shape.head(2)


def test_live_counts_are_the_formula_for_every_case(tiny_bert):
    for method, settings in CASES:
        engine, state, _ = prepare(tiny_bert, method, settings, make_data())
        assert engine.counts(state.trial.id) == count(build(method, settings), tiny_bert.shape, 2)


def test_what_is_stored_differs_from_what_is_trained():
    assert build("propetl", {"r": 64}).stored(BERT).num_bytes == 4 * 136_000
    normalised = build("houlsby_variant", {"variant": "batch_norm"})
    assert normalised.stored(BERT).values == normalised.counts(BERT)[1] + 24 * 128
    assert build("pfeiffer", {"r": 48}).stored(BERT).values == 894_528


def start_logits(model, method, settings):
    engine, state, _ = prepare(model, method, settings, make_data())
    return logits_of(engine, state)


@pytest.mark.parametrize("family", ["tiny_bert", "tiny_roberta"])
def test_parallel_starts_as_the_bare_encoder_compacter_up_to_rounding_others_near(family, request):
    model = request.getfixturevalue(family)
    bare = start_logits(model, "full", {})
    for method, settings in CASES:
        distance = (start_logits(model, method, settings) - bare).abs().max()
        if method == "parallel":
            assert distance == 0
        else:
            assert distance < (3e-6 if method.startswith("compacter") else 0.05), (method, settings)


def test_nothing_below_the_lowest_adapter_is_differentiated(tiny_bert, monkeypatch):
    engine, _, stack = prepare(tiny_bert, "adapter_drop", {"r": 4, "dropped": 1}, make_data())
    needed, layer = [], engine.backbone.layer

    def seeing(run, number, h):
        out = layer(run, number, h)
        needed.append(out.requires_grad)
        return out

    monkeypatch.setattr(engine.backbone, "layer", seeing)
    compute([stack], engine.backbone, draw([stack], engine.backbone))
    assert needed == [False, True]


def test_robust_drops_any_number_of_layers_but_not_the_last():
    method = build("adapter_drop_robust", {})
    sampled = {int(method.sample_step_inputs(BERT, np.random.default_rng(seed))["dropped"][0]) for seed in range(300)}
    assert sampled == set(range(12))
    assert list(method.eval_inputs(BERT)["dropped"]) == [0]


def test_running_statistics_follow_training_alone(tiny_bert):
    settings = {"r": 4, "variant": "batch_norm"}
    engine, state, stack = prepare(tiny_bert, "houlsby_variant", settings, make_data())
    entries = [e for e in stack.parameters.layout.entries if "running" in e.name]
    assert len(entries) == 2 * 4
    moved = {i for run in stack.parameters.layout.param_groups for i in range(run.start, run.stop)}
    assert len(moved) == stack.parameters.layout.size - 2 * 4 * 4
    assert all(i not in moved for e in entries for i in range(e.start, e.stop))

    def buffers():
        return torch.cat([stack.parameters.values[0, e.start : e.stop] for e in entries]).clone()

    before = buffers()
    engine.test(state.trial.id)
    assert torch.equal(buffers(), before)
    engine.step()
    after = buffers()
    assert (after != before).all()
    engine.test(state.trial.id)
    assert torch.equal(buffers(), after)


@pytest.mark.parametrize("share", [0.5, 0.2, 1.0])
def test_each_layer_uses_its_own_share_of_the_one_prototype(share, tiny_bert):
    method = build("propetl", {"r": 4, "share": share})
    _, _, stack = prepare(tiny_bert, "propetl", {"r": 4, "share": share}, make_data())
    opened = stack.parameters.named_tensors(slice(None))
    masks = [method.chosen(opened[f"{layer}.ffn.output.down_scores"]) for layer in range(2)]
    assert [int(m.sum()) for m in masks] == [128 - int((1 - share) * 128)] * 2
    assert set(masks[0].unique().tolist()) <= {0.0, 1.0}
    assert (share == 1.0) == torch.equal(*masks)
    assert [name for name in opened if name.endswith("down")] == ["shared.down"]


@pytest.mark.parametrize(
    ("method", "settings", "message"),
    [
        ("pfeiffer", {"r": 0}, "r = 0"),
        ("parallel", {"beside": "head"}, "attention, ffn, both"),
        ("parallel", {"scale": 0}, "scale = 0"),
        ("parallel", {"scale": "large"}, "learned"),
        ("houlsby_variant", {"variant": "dropout"}, "norm_input"),
        ("houlsby_variant", {"extra": 0}, "extra = 0"),
        ("adapter_drop", {"dropped": 12}, "between 0 and 11"),
        ("compacter", {"r": 10}, "n = 4: must divide r = 10"),
        ("compacter", {"r": 10, "n": 5}, "must divide the backbone's width = 768"),
        ("compacter_pp", {"n": 0}, "n = 0"),
        ("propetl", {"share": 1.5}, "share = 1.5"),
        ("propetl", {"mask_lr": "fast"}, "mask_lr"),
    ],
)
def test_wrong_settings_are_refused_with_the_reason(method, settings, message):
    with pytest.raises(ValueError, match=message):
        build(method, settings, BERT)
