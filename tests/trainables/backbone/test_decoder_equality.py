"""Decoders equal transformers' models for sequence classification, and the check that says so sees what could be wrong.

Three trials of different methods share a pass over packed rows of ragged texts; transformers' model gets each trial's texts
padded, and the method by hooks. Norms and biases of the tiny models are drawn, as their usual first values would hide faults.
"""

from dataclasses import replace
from functools import cache, partial

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.func import functional_call
from transformers import AutoModelForSequenceClassification

from tests.fixtures.encoders import write_tiny
from tests.fixtures.trials import make_data, make_trial
from tests.trainables.backbone.test_packing import padded
from trainables.backbone import attention, decoder
from trainables.backbone.backbone import Backbone
from trainables.backbone.decoder import Decoder
from trainables.backbone.families import FAMILIES
from trainables.backbone.families.decoder_family import DecoderFamily
from trainables.backbone.models import resolve
from trainables.backbone.packing import pack
from trainables.methods.spec import SUBLAYER_OUTPUTS
from trainables.tasks.forms.classification import CLASSIFICATION
from trainables.training.forward_pass import ForwardPass
from trainables.training.losses import losses_of
from trainables.training.parameter_counts import build
from trainables.training.parameter_layout import ParameterLayout
from trainables.training.segments import Segment
from trainables.training.stacked_parameters import StackedParameters

CPU, TOLERANCE = torch.device("cpu"), 1e-5
DECODERS = [name for name, family in FAMILIES.items() if isinstance(family, DecoderFamily)]
METHODS = (("lora", {"targets": "all", "r": 4}), ("adapter", {"r": 4}), ("ia3", {}))
SPLIT = make_data(low=1, high=24).train
CHOSEN = [np.array(each) for each in ([3, 11, 0, 25, 8], [4, 7, 1], [30, 2, 9, 5])]


# The outputs of modules that are several maps: of the tiny model, with 4 heads of 8, of which 2 are of keys.
PARTS = {
    ("gpt2", "attention.query"): slice(0, 32),
    ("gpt2", "attention.key"): slice(32, 64),
    ("gpt2", "attention.value"): slice(64, 96),
    ("phi3", "attention.query"): slice(0, 32),
    ("phi3", "attention.key"): slice(32, 48),
    ("phi3", "attention.value"): slice(48, 64),
    ("phi3", "ffn.gate"): slice(0, 64),
    ("phi3", "ffn.intermediate"): slice(64, 128),
}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """A function from a family to its tiny model, whose norms and biases are drawn."""

    @cache
    def get(name):
        folder = write_tiny(tmp_path_factory.mktemp(name), name)
        path, draw = folder / "model.safetensors", torch.Generator().manual_seed(5)
        tensors = load_file(path)
        for key in sorted(tensors):
            if tensors[key].dim() == 1:
                tensors[key] = tensors[key] + 0.3 * torch.randn(tensors[key].shape, generator=draw)
        save_file(tensors, path, {"format": "pt"})
        return resolve(str(folder))

    return get


def prepared(backbone):
    """The trials' parameters, away from their first values."""
    draw = torch.Generator().manual_seed(9)
    for seed, (name, settings) in enumerate(METHODS):
        layout = ParameterLayout(build(name, settings, backbone.shape), backbone, 2)
        row = layout.initial_values(seed, backbone)
        row += 0.1 * torch.randn(row.shape, generator=draw)
        yield StackedParameters(layout, backbone, make_trial().recipe, row[None])


def ours(model, explicit, precision="fp32"):
    """The logits of each trial's examples and the gradient of its parameters, of one pass for all."""
    backbone = Backbone.load(model, CPU, precision)
    stacks = list(prepared(backbone))
    segments = [Segment(parameters, k, k + 1) for k, parameters in enumerate(stacks)]
    rows = pack(
        [(SPLIT, c) for c in CHOSEN], backbone.shape.heads, CPU, [1, 1, 1], reads_last=backbone.shape.reads_last
    )
    logits = ForwardPass(backbone, segments, rows, None, twice_differentiable=explicit).logits()
    torch.stack(
        [losses_of(each, rows, s, CLASSIFICATION).sum() for each, s in zip(logits, segments, strict=True)]
    ).sum().backward()
    return [(each[0, : len(c)].detach(), p.leaf.grad[0]) for each, c, p in zip(logits, CHOSEN, stacks, strict=True)]


def hooked(reference, family, layers, method, v):
    """Let transformers' model apply a method at the modules whose outputs are the method's sites. Returns what takes it away."""
    base, handles = reference.base_model, []

    def at_output(path, change, part=slice(None)):
        def hook(module, inputs, h):
            changed = h.clone()
            changed[..., part] = change(inputs[0], h[..., part])
            return changed

        handles.append(base.get_submodule(path).register_forward_hook(hook))

    for i in range(layers):
        for site in family.maps:
            name, path = f"{i}.{site}", family.map_path(i, site)
            part = PARTS.get((reference.config.model_type, site), slice(None))
            if f"{name}.down" in v:
                at_output(path, lambda x, h, n=name: h + method.scale * (x @ v[f"{n}.down"] @ v[f"{n}.up"]), part)
            if f"{name}.scale" in v:
                at_output(path, lambda x, h, n=name: h * v[f"{n}.scale"], part)
        if f"{i}.ffn.hidden.scale" in v:
            scaled = base.get_submodule(family.map_path(i, "ffn.dense"))
            handles.append(
                scaled.register_forward_pre_hook(lambda module, x, n=i: (x[0] * v[f"{n}.ffn.hidden.scale"],))
            )
        for site, last in zip(SUBLAYER_OUTPUTS, ("attention.dense", "ffn.dense"), strict=True):
            name, after = f"{i}.{site}", family.output_norms.get(site)
            path = family.layer.format(i) + after if after else family.map_path(i, last)
            if f"{name}.down" in v:

                def bottleneck(x, h, n=name):
                    inner = (h @ v[f"{n}.down"] + v[f"{n}.down_bias"]).relu()
                    return h + inner @ v[f"{n}.up"] + v[f"{n}.up_bias"]

                at_output(path, bottleneck)
    return handles


@cache
def theirs(model):
    """What `ours` returns, by transformers: each trial alone, its texts padded."""
    backbone, family, found = Backbone.load(model, CPU), FAMILIES[model.family], []
    reference = AutoModelForSequenceClassification.from_pretrained(
        model.path, num_labels=2, attn_implementation="eager"
    )
    # `padded` fills up with it, and it tells transformers where an example ends.
    reference.config.pad_token_id = 0
    paths = family.norm_paths(model.shape.layers)
    for parameters, chosen in zip(prepared(backbone), CHOSEN, strict=True):
        leaf, layout = parameters.values[0].clone().requires_grad_(), parameters.layout
        v = {e.name: leaf[e.start : e.stop].view(e.shape) for e in layout.entries}
        changed = {"score.weight": v["head.out"].T}
        for number, path in enumerate(paths):
            for kind in ("weight", "bias"):
                if f"norm.{number}.{kind}" in v:
                    changed[f"{family.prefix}.{path}.{kind}"] = v[f"norm.{number}.{kind}"]
        handles = hooked(reference, family, model.shape.layers, layout.method, v)
        ids, mask = padded(SPLIT, chosen)
        labels = torch.from_numpy(SPLIT.labels[chosen]).long()
        out = functional_call(
            reference.eval(), changed, kwargs={"input_ids": ids, "attention_mask": mask, "labels": labels}
        )
        out.loss.backward()
        found.append((out.logits.detach(), leaf.grad))
        for handle in handles:
            handle.remove()
    return found


def distance(model, explicit=False):
    """The largest difference of logits and gradients, in units of the largest value of each if that is above 1."""
    pairs = zip(ours(model, explicit), theirs(model), strict=True)
    return max(
        float((a - b).abs().max() / max(1, b.abs().max())) for one, two in pairs for a, b in zip(one, two, strict=True)
    )


@pytest.mark.parametrize("explicit", [True, False], ids=["explicit", "fused"])
@pytest.mark.parametrize("name", DECODERS)
def test_three_methods_together_equal_transformers(name, explicit, drawn):
    logits = [each for each, _ in theirs(drawn(name))]
    assert min(float(each.std()) for each in logits) > 0.02, "logits that hardly differ would hide faults"
    assert distance(drawn(name), explicit) < TOLERANCE


def attending(patch, **changed):
    attend = attention.attend
    patch.setattr(decoder, "attend", lambda *args, **given: attend(*args, **{**given, **changed}))


def skipping_norm(number):
    normalize = Decoder.normalize
    return lambda self, n, h, affine=True: h if n == number else normalize(self, n, h, affine)


def of_family(patch, **fields):
    """Plant another value of fields of the family after its shape was made."""
    made = Decoder.__init__

    def init(self, *args, **given):
        made(self, *args, **given)
        self.family = replace(self.family, **fields)

    patch.setattr(Decoder, "__init__", init)


def turned(patch, change):
    """Plant other positions of rotations; `change` gets the layer, too."""
    rotation = Decoder._rotation
    patch.setattr(Decoder, "_rotation", lambda self, layer, places: rotation(self, *change(layer, places)))


def positions_late(patch):
    made = Decoder.__init__

    def init(self, *args, **given):
        made(self, *args, **given)
        self.module.wpe.weight.data = self.module.wpe.weight.roll(-1, 0)

    patch.setattr(Decoder, "__init__", init)


def words_unscaled(patch):
    made = Decoder.__init__

    def init(self, *args, **given):
        made(self, *args, **given)
        self.words.embed_scale.fill_(1)

    patch.setattr(Decoder, "__init__", init)


def of_parts(exchanged, patch):
    """Plant the maps of other sites."""
    linear_map = Decoder._linear_map
    patch.setattr(Decoder, "_linear_map", lambda self, layer, site: linear_map(self, layer, exchanged.get(site, site)))


def shared_in_turns(self, x):
    width, times = self.shape.query_width // self.shape.heads, self.shape.query_width // self.shape.key_width
    return x.unflatten(-1, (-1, width)).repeat(*[1] * (x.dim() - 1), times, 1).flatten(-2)


ROTATING = [name for name in DECODERS if name != "gpt2"]
SHARING_KEYS = ["llama", "mistral", "qwen3", "smollm3", "olmo2", "gemma2", "gemma3_text", "phi3"]
WINDOWS = ["mistral", "gemma2", "gemma3_text", "phi3"]
HEAD_NORMS = ["qwen3", "olmo2", "gemma3_text"]
GEMMAS = ["gemma2", "gemma3_text"]
# What is planted in our forward pass, and the families in which it is wrong.
FAULTS = {
    "no causal mask": (partial(attending, causal=False), DECODERS),
    "no norm of the last layer's feed-forward part": (
        lambda patch: patch.setattr(Decoder, "normalize", skipping_norm(3)),
        DECODERS,
    ),
    "no last norm": (lambda patch: patch.setattr(Decoder, "normalize", skipping_norm(4)), DECODERS),
    "angles a tenth too large": (lambda patch: turned(patch, lambda layer, places: (layer, places * 1.1)), ROTATING),
    "positions one too late": (positions_late, ["gpt2"]),
    "all layers rotate": (partial(of_family, rotated_key=""), ["smollm3"]),
    "rotations of the other kind of layer": (
        lambda patch: turned(patch, lambda layer, places: (1 - layer, places)),
        ["gemma3_text"],
    ),
    "no window": (partial(attending, window=None), WINDOWS),
    "a window one too wide": (partial(attending, window=7), WINDOWS),
    "no soft cap": (partial(attending, soft_cap=None), ["gemma2"]),
    "scores divided by the root of a head's width": (partial(attending, scale=None), GEMMAS),
    "gains without the offset": (partial(of_family, gain_offset=0.0), GEMMAS),
    "embeddings without their scale": (words_unscaled, GEMMAS),
    "no norms of queries and keys": (partial(of_family, query_key_norms={}), HEAD_NORMS),
    "no norms of outputs": (partial(of_family, output_norms={}), ["olmo2", *GEMMAS]),
    "gate and intermediate map exchanged": (
        partial(of_parts, {"ffn.gate": "ffn.intermediate", "ffn.intermediate": "ffn.gate"}),
        ["phi3"],
    ),
    "key and value map exchanged": (
        partial(of_parts, {"attention.key": "attention.value", "attention.value": "attention.key"}),
        ["phi3", "gpt2"],
    ),
    "the wrong heads share keys": (
        lambda patch: patch.setattr(Decoder, "_shared", shared_in_turns),
        SHARING_KEYS,
    ),
}


@pytest.mark.parametrize(("fault", "name"), [(fault, name) for fault, (_, names) in FAULTS.items() for name in names])
def test_a_planted_fault_makes_the_check_fail(fault, name, drawn, monkeypatch):
    theirs(drawn(name))
    FAULTS[fault][0](monkeypatch)
    assert distance(drawn(name)) > 10 * TOLERANCE


@pytest.mark.parametrize("name", DECODERS)
def test_bf16_differs_by_no_more_than_its_rounding_explains(name, drawn):
    """Numbers: docs/decisions.md."""
    for (narrow, _), (exact, _) in zip(ours(drawn(name), False, "bf16"), ours(drawn(name), False), strict=True):
        assert 0 < (narrow - exact).abs().max() < 0.1 * exact.abs().max()
