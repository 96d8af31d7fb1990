"""The methods that peft has too, with the names and shapes of the export: logits, gradients and starts against peft."""

import json

import peft
import pytest
import torch
from peft.tuners.c3a.utils import BlockCircularConvolution, get_circulant_fast

from orchestrator.export.peft_layout import _as_theirs, _key, config, to_peft
from tests.fixtures.low_rank import prepare
from trainables.backbone.models import KNOWN_CONFIGS, shape_of
from trainables.methods import METHODS
from trainables.training.parameter_counts import build

# Settings beside the name of the method; `stir` moves the values away from their start.
CASES = [
    ("dora", {"r": 4}),
    ("lora_fa", {"r": 4}),
    ("lora_plus", {"r": 4, "alpha": 3.0}),
    ("loha", {"r": 3}),
    ("loha", {"r": 8, "alpha": 12.0}),
    ("lokr", {"r": 2}),
    ("lokr", {"r": 4, "alpha": 2.0}),
    ("lokr", {"r": 3, "factor": 2}),
    ("lokr", {"r": 2, "factor": 5}),
    ("miss", {"r": 8}),
    ("miss", {"r": 6}),
    ("vb_lora", {"r": 3, "vectors": 12, "length": 8}),
    ("vb_lora", {"r": 2, "vectors": 7, "length": 4, "k": 3}),
    ("c3a", {"block_size": 4}),
    ("c3a", {"block_size": 16}),
    ("oft", {"block_size": 8}),
    ("oft", {"block_size": 2}),
    ("hra", {"r": 4}),
    ("hra", {"r": 10}),
    ("road", {"group_size": 8}),
    ("road", {"group_size": 4, "variant": "road_2"}),
    ("road", {"group_size": 16, "variant": "road_4"}),
]
# Random values of this size, added to all values, are far from the start, but not where single precision is lost.
STIR = {"loha": 0.4, "vb_lora": 0.4, "c3a": 2.0, "oft": 0.1, "road": 0.15}


class Circulant(BlockCircularConvolution):
    """peft's convolution as a product with the matrix that peft merges; its own gradient of the input is not the derivative."""

    @staticmethod
    def apply(x, w):
        return x @ get_circulant_fast(w).T


def test_the_gradient_that_peft_passes_through_its_circular_convolution_is_still_wrong():
    """If this fails, peft is mended: `Circulant` and the sentence in c3a.py can go."""
    draw = torch.Generator().manual_seed(0)
    x, g = (torch.randn(3, 8, generator=draw, dtype=torch.double) for _ in range(2))
    w = torch.randn(2, 2, 4, generator=draw, dtype=torch.double)
    outputs, grads = [], []
    for convolution in (BlockCircularConvolution, Circulant):
        leaf = x.clone().requires_grad_()
        outputs.append(convolution.apply(leaf, w))
        (outputs[-1] * g).sum().backward()
        grads.append(leaf.grad)
    assert torch.allclose(*outputs)
    assert (grads[0] - grads[1]).abs().max() > 0.1


def wrapped(prepared, name, start=False):
    """peft's model of the method around the plain one; with our values, unless its own `start` is asked for."""
    layout, family = prepared.parameters.layout, prepared.backbone.family
    written = config(name, layout, family, "base", ())
    kind = peft.PeftConfig.from_peft_type(**{**json.loads(json.dumps(written)), "inference_mode": False})
    # Without the head, the encoder itself is what peft wraps.
    kind.target_modules, kind.modules_to_save = kind.target_modules.partition(r"\.")[2], None
    kind.task_type = None
    torch.manual_seed(0)
    model = peft.get_peft_model(prepared.plain, kind).eval()
    if start:
        return model
    ours = {n: t for n, t in prepared.entries(prepared.parameters.values).items() if not n.startswith("head.")}
    tensors = to_peft(name, prepared.entries(prepared.parameters.values), layout, prepared.backbone)
    renamed = {plain_key(key, family): t for key, t in tensors.items() if ours_key(key, prepared, name)}
    assert len(renamed) == len(ours)
    assert set(renamed) == set(peft.get_peft_model_state_dict(model)), "nothing of the method is left over"
    found = peft.set_peft_model_state_dict(model, renamed)
    assert not found.unexpected_keys
    return model


def plain_key(key, family):
    return key.replace(f"base_model.model.{family.prefix}.", "base_model.model.")


def ours_key(key, prepared, name):
    layout, family = prepared.parameters.layout, prepared.backbone.family
    return key in {_key(name, e.name, layout, family) for e in layout.entries if not e.name.startswith("head.")}


def their_key(name, e, prepared):
    family = prepared.backbone.family
    return plain_key(_key(name, e.name, prepared.parameters.layout, family), family)


def their_parameters(model):
    """peft's parameters by the names that they have in files."""
    found = {}
    for key, parameter in model.named_parameters():
        name = key.replace(".default", "").replace("magnitude_vector.weight", "magnitude_vector")
        found["base_model.vblora_vector_bank" if "vblora_vector_bank" in name else name] = parameter
    return found


def case_id(value):
    return value if isinstance(value, str) else "-".join(f"{k}={v}" for k, v in value.items())


@pytest.mark.parametrize("targets", ["qv", "all"])
@pytest.mark.parametrize("family", ["bert", "llama"])
@pytest.mark.parametrize(("name", "settings"), CASES, ids=case_id)
def test_logits_and_gradients_are_pefts(name, settings, family, targets, tiny_model, monkeypatch):
    monkeypatch.setattr(peft.tuners.c3a.layer, "BlockCircularConvolution", Circulant)
    stir = STIR.get(name, 0.3 if targets == "qv" else 0.12)
    prepared = prepare(tiny_model(family), name, stir, targets=targets, **settings)
    bare = prepared.theirs(prepared.plain)
    model = wrapped(prepared, name)
    (logits, loss), theirs = prepared.run(), prepared.theirs(model)
    assert (logits - bare).abs().max() > 1e-2
    assert torch.allclose(logits, theirs, atol=1e-5)

    loss.backward()
    prepared.loss_of(theirs).backward()
    ours, found = prepared.entries(prepared.parameters.leaf.grad), their_parameters(model)
    for e in prepared.parameters.layout.entries:
        if e.name.startswith("head."):
            continue
        grad = _as_theirs(name, e.name, ours[e.name])
        if not e.parameter.trained:
            assert not grad.any()
            continue
        their = found[their_key(name, e, prepared)]
        assert grad.any()
        assert torch.allclose(grad, their.grad, atol=1e-5, rtol=1e-4), e.name


# Where training does not start at the frozen model, in peft neither.
NEAR = {"vb_lora", "c3a"}
STARTS = dict(CASES[::-1])


@pytest.mark.parametrize("name", STARTS)
def test_starts_are_drawn_as_peft_draws_them(name, tiny_model):
    """Per tensor: zeros and ones where peft has them; otherwise the same mean and deviation of the random numbers."""
    prepared = prepare(tiny_model("bert"), name, 0.0, targets="all", **STARTS[name])
    theirs = their_parameters(wrapped(prepared, name, start=True))
    ours = prepared.entries(prepared.parameters.values)
    for last in METHODS[name](**STARTS[name]).map_parameters(32, 32):
        entries = [e for e in prepared.parameters.layout.entries if e.name.endswith(f".{last}")]
        # In units of peft's largest number, because the bound depends on a map's widths.
        pairs = [(ours[e.name], theirs[their_key(name, e, prepared)].detach()) for e in entries]
        mine, other = (
            torch.cat([t.flatten() / bound_of(pair[1]) for pair in pairs for t in [pair[i]]]) for i in (0, 1)
        )
        deviation, error = float(other.std()), len(other) ** -0.5
        assert float(mine.mean()) == pytest.approx(float(other.mean()), abs=6 * deviation * error + 1e-6), last
        assert float(mine.std()) == pytest.approx(deviation, rel=4 * error, abs=1e-6), last


def bound_of(tensor):
    return float(tensor.abs().max()) or 1.0


@pytest.mark.parametrize("family", ["bert", "llama"])
@pytest.mark.parametrize("name", STARTS)
def test_training_starts_at_or_near_the_frozen_model(name, family, tiny_model):
    prepared = prepare(tiny_model(family), name, 0.0, targets="all", **STARTS[name])
    distance = float((prepared.run()[0] - prepared.theirs(prepared.plain)).abs().max())
    assert distance < (0.05 if name in NEAR else 3e-6)
    assert name not in NEAR or distance > 1e-5


def test_reflections_that_are_equal_in_pairs_cancel(tiny_model):
    vectors = prepare(tiny_model("bert"), "hra", 0.0, r=6)
    for name, value in vectors.entries(vectors.parameters.values).items():
        if name.endswith(".vectors"):
            assert torch.equal(value[:, ::2], value[:, 1::2])
            assert len(value[:, ::2].unique()) == value[:, ::2].numel()


WRONG = [
    ("lora_plus", {"ratio": 0.5}, "ratio = 0.5: must be a number between 1.0"),
    ("loha", {"r": 0}, "r = 0: must be a whole number"),
    ("loha", {"alpha": 0}, "alpha = 0: must be a number"),
    ("lokr", {"factor": 1}, "factor = 1: must be a whole number between 2"),
    ("miss", {"r": 769}, "r = 769: must be a whole number between 1 and 768"),
    ("vb_lora", {"length": 100}, "length = 100: must divide 768, the input width of attention.query"),
    ("vb_lora", {"vectors": 4, "k": 5}, "k = 5: must be a whole number between 1 and 4"),
    ("c3a", {"block_size": 96, "targets": "all"}, None),
    ("c3a", {"block_size": 36}, "block_size = 36: must divide 768, the input width of attention.query"),
    ("oft", {"block_size": 1}, "block_size = 1: must be a whole number between 2"),
    ("oft", {"block_size": 50}, "block_size = 50: must divide 768, the input width of attention.query"),
    ("hra", {"r": 3}, "r = 3: must be even"),
    ("road", {"variant": "road_3"}, "variant = 'road_3': must be one of road_1, road_2, road_4"),
    ("road", {"group_size": 3}, "group_size = 3: must be even"),
    ("road", {"group_size": 10}, "group_size = 10: must divide 768, the output width of attention.query"),
]


@pytest.mark.parametrize(("name", "settings", "message"), WRONG)
def test_wrong_settings_are_refused_with_the_reason(name, settings, message):
    shape = shape_of(KNOWN_CONFIGS["bert-base-uncased"])
    if message is None:
        build(name, settings, shape)
        return
    with pytest.raises(ValueError, match=message):
        build(name, settings, shape)


def test_only_the_output_width_of_a_grouped_key_map_limits_road(tiny_model):
    shape = tiny_model("llama").shape
    assert (shape.width, shape.key_width) == (32, 16)
    build("road", {"group_size": 16}, shape)
    with pytest.raises(ValueError, match="group_size = 32: must divide 16, the output width of attention"):
        build("road", {"group_size": 32}, shape)
    build("oft", {"block_size": 32}, shape)
