"""MPNet, ModernBERT and DeBERTa-v3: several methods in one pass give what transformers' own model gives for each of them alone.

And a check that cannot fail is none: with a part of the forward pass left out or changed, the same comparison fails.
"""

import json
import shutil

import numpy as np
import pytest
import torch
import transformers

from search_spaces.language import Recipe
from tests.fixtures.captured import fake_steps
from tests.fixtures.method_settings import SMALL
from tests.fixtures.transformers_reference import Reference
from tests.fixtures.trials import make_data, make_trial
from tests.trainables.backbone.test_packing import padded, positions
from tests.trainables.training.test_captured_steps import losses, train
from trainables.backbone.backbone import Backbone
from trainables.backbone.families import FAMILIES
from trainables.backbone.models import resolve, shape_of
from trainables.backbone.packing import pack
from trainables.methods import METHODS
from trainables.training.forward_pass import ForwardPass
from trainables.training.parameter_layout import ParameterLayout
from trainables.training.segments import Segment
from trainables.training.stacked_parameters import StackedParameters

CPU = torch.device("cpu")
NEWER = ["mpnet", "modernbert", "deberta-v2"]
PADDED = [
    make_trial(name, seed=seed, batch_size=4 * seed, recipe=Recipe(epochs=2, patience=9), **SMALL[name])
    for seed, name in enumerate(("lora", "prefix", "prompt_tuning"), 1)
]
# Two trials of LoRA on all maps, one of Houlsby adapters with their norms, one of (IA)^3.
MIXED = [("lora", {"r": 3, "targets": "all"}, 2), ("adapter", {"r": 4}, 1), ("ia3", {}, 1)]


def stirred(layout, backbone, seeds):
    """Trials' rows [G, P] away from their start, where many products are zero."""
    rows = torch.stack([layout.initial_values(seed, backbone) for seed in seeds])
    return rows + 0.1 * torch.randn(rows.shape, generator=torch.Generator().manual_seed(seeds[0]))


def furthest(model, explicit, precision="fp32", change=None, high=50):
    """Largest differences of logits and of gradients between the fused pass and transformers, relative to the largest value.

    `change(backbone)`: what is planted in the backbone before its pass.
    """
    backbone, data = Backbone.load(model, CPU, precision), make_data(low=2, high=high)
    if change:
        change(backbone)
    segments, start = [], 0
    for name, settings, number in MIXED:
        layout = ParameterLayout(METHODS[name](**settings), backbone, 2)
        values = stirred(layout, backbone, range(start + 1, start + number + 1))
        parameters = StackedParameters(layout, backbone, make_trial(name).recipe, values)
        segments.append(Segment(parameters, start, start + number))
        start += number
    chosen = [np.array([0, 5, 9]), np.array([3, 11]), np.array([7, 8, 2, 30]), np.array([1, 20, 4])]
    blocks = [number for *_, number in MIXED]
    rows = pack([(data.train, each) for each in chosen], model.shape.heads, CPU, blocks)
    logits = ForwardPass(backbone, segments, rows, None, twice_differentiable=explicit).logits()
    weights = torch.randn(12, 2, generator=torch.Generator().manual_seed(3))
    sum((out[:, :2] * weights[:2]).sum() for out in logits).backward()

    reference, off = Reference(model), [0.0, 0.0]
    for segment, out in zip(segments, logits, strict=True):
        for row in range(segment.stop - segment.start):
            layout, number = segment.parameters.layout, segment.start + row
            values = {
                e.name: segment.parameters.values[row, e.start : e.stop].view(e.shape).clone().requires_grad_()
                for e in layout.entries
            }
            theirs = reference.logits(values, inputs_of(model, data.train, chosen[number]), layout.method)
            (theirs[:2] * weights[:2]).sum().backward()
            grad = torch.cat([values[e.name].grad.reshape(-1) for e in layout.entries])
            mine = segment.parameters.leaf.grad[row]
            off[0] = max(off[0], distance(out[row, : len(theirs)], theirs))
            off[1] = max(off[1], distance(mine, grad))
    return off


def distance(ours, theirs):
    return ((ours - theirs).abs().max() / theirs.abs().max()).item()


def inputs_of(model, split, chosen):
    """The arguments of transformers' forward function: padded ids, a mask, and positions where these are counted from 2."""
    ids, mask = padded(split, chosen)
    more = {"position_ids": positions(model, mask)} if FAMILIES[model.family].first_position else {}
    return {"input_ids": ids, "attention_mask": mask, **more}


@pytest.mark.parametrize("explicit", [False, True], ids=["fused", "explicit"])
@pytest.mark.parametrize("family", NEWER)
def test_mixed_trials_equal_transformers(family, explicit, tiny_model):
    logits, gradients = furthest(tiny_model(family), explicit)
    assert logits < 1e-5
    assert gradients < 1e-5


@pytest.mark.parametrize("family", NEWER)
def test_bf16_differs_by_no_more_than_rounding_explains(family, tiny_model):
    logits, gradients = furthest(tiny_model(family), explicit=False, precision="bf16")
    assert 1e-5 < logits < 0.05
    assert 1e-5 < gradients < 0.1


def without_bias(backbone):
    backbone._score_bias = lambda run, layer: None


def backwards_bias(backbone):
    own = backbone._bias
    backbone._bias = lambda length: own(length).transpose(1, 2)


def without_norm(number):
    def change(backbone):
        own = backbone.normalize
        backbone.normalize = lambda n, h, affine=True: h if n == number else own(n, h, affine)

    return change


def wider_window(backbone):
    own = backbone._window
    backbone._window = lambda layer: own(layer) and own(layer) + 1


def everywhere_global(backbone):
    backbone._window = lambda layer: None


def everywhere_local_rotation(backbone):
    own = backbone._rotation
    backbone._rotation = lambda layer, positions: own(1, positions)


def without_rotation(backbone):
    own = backbone._rotation
    backbone._rotation = lambda layer, positions: own(layer, 0 * positions)


def with_a_norm_in_layer_0(backbone):
    own = backbone._attention_input
    backbone._attention_input = lambda run, layer, x: own(run, layer, x) if layer else backbone.normalize(1, x)


def swapped_gate(backbone):
    for maps in backbone._maps:
        maps["ffn.gate"], maps["ffn.intermediate"] = maps["ffn.intermediate"], maps["ffn.gate"]


def methods_pass_distances_by(backbone):
    """LoRA and others change the maps of tokens alone."""
    own = backbone._mapped

    def mapped(run, layer, site, x):
        act, run.act = run.act, lambda layer, site, h, tokens, x=None: h
        found = own(run, layer, site, x)
        run.act = act
        return found

    backbone._mapped = mapped


def usual_scale(backbone):
    backbone.__class__ = type("Changed", (type(backbone),), {"score_scale": (32 / 4) ** -0.5})


def linear_ranges(backbone):
    backbone._ranges = lambda length: (torch.arange(1 - length, length) + 16).clamp(0, 31)


def one_sided(site):
    def change(backbone):
        own = backbone._mapped
        backbone._mapped = lambda run, layer, where, x: own(run, layer, where, x) * (where != site)

    return change


def backwards_distances(backbone):
    own = backbone._distances
    backbone._distances = lambda length: own(length).flip(0)


WRONG = [
    ("deberta-v2", without_bias),
    ("deberta-v2", methods_pass_distances_by),
    ("deberta-v2", usual_scale),
    ("deberta-v2", linear_ranges),
    ("deberta-v2", one_sided("attention.query")),
    ("deberta-v2", one_sided("attention.key")),
    ("deberta-v2", backwards_distances),
    ("deberta-v2", without_norm(3)),
    ("modernbert", wider_window),
    ("modernbert", everywhere_global),
    ("modernbert", everywhere_local_rotation),
    ("modernbert", without_rotation),
    ("modernbert", with_a_norm_in_layer_0),
    ("modernbert", without_norm(4)),
    ("modernbert", swapped_gate),
    ("mpnet", without_bias),
    ("mpnet", backwards_bias),
    ("mpnet", without_norm(2)),
]


@pytest.mark.parametrize("explicit", [False, True], ids=["fused", "explicit"])
@pytest.mark.parametrize(("family", "change"), WRONG)
def test_a_wrong_forward_pass_is_noticed(family, change, explicit, tiny_model):
    logits, gradients = furthest(tiny_model(family), explicit, change=change)
    assert logits > 1e-3
    assert gradients > 1e-3


@pytest.mark.parametrize("explicit", [False, True], ids=["fused", "explicit"])
def test_a_modernbert_whose_head_reads_the_mean_equals_transformers(explicit, tiny_model, tmp_path):
    """Its published models' head does."""
    logits, gradients = furthest(variant(tiny_model("modernbert"), tmp_path, classifier_pooling="mean"), explicit)
    assert logits < 1e-5
    assert gradients < 1e-5


def variant(model, folder, **changes):
    """The same weights with other entries in config.json."""
    shutil.copytree(model.path, folder / "model")
    path = folder / "model" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), **changes}), encoding="utf-8")
    return resolve(str(folder / "model"))


def test_a_modernbert_head_starts_from_the_pretrained_one(tiny_model, tmp_path):
    """As transformers' model for classification does, from a file of masked language modelling; other parts are drawn."""
    config = transformers.AutoConfig.from_pretrained(tiny_model("modernbert").path)
    torch.manual_seed(5)
    pretrained = transformers.ModernBertForMaskedLM(config)
    torch.nn.init.normal_(pretrained.head.norm.weight)
    folder = shutil.copytree(tiny_model("modernbert").path, tmp_path / "model")
    pretrained.save_pretrained(folder)
    backbone = Backbone.load(resolve(str(folder)), CPU)
    layout = ParameterLayout(METHODS["lora"](), backbone, 2)
    theirs = transformers.ModernBertForSequenceClassification.from_pretrained(folder)
    one, other = (layout.initial_values(seed, backbone) for seed in (1, 2))
    for name, expected in (("head.dense", theirs.head.dense.weight.T), ("head.norm", theirs.head.norm.weight)):
        e = layout.by_name[name]
        for row in (one, other):
            assert torch.equal(row[e.start : e.stop].view(e.shape), expected)
    e = layout.by_name["head.out"]
    assert not torch.equal(one[e.start : e.stop], other[e.start : e.stop])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"classifier_pooling": "max"}, "classifier_pooling = 'max': only 'cls' and 'mean'"),
        ({"classifier_activation": "relu"}, "classifier_activation = 'relu'"),
        ({"mlp_dropout": 0.1}, "mlp_dropout = 0.1: only 0 is supported; set it to 0"),
        ({"norm_bias": True}, "norm_bias = True"),
        ({"attention_bias": True}, "attention_bias = True"),
        ({"rope_parameters": {"full_attention": {"rope_type": "yarn"}}}, "'yarn'"),
        ({"rope_scaling": {"type": "linear", "factor": 2.0}}, "'linear'"),
        ({"intermediate_size": None}, "intermediate_size = None"),
    ],
)
def test_a_modernbert_with_what_the_forward_pass_lacks_is_refused(change, message):
    config = transformers.ModernBertConfig().to_dict()
    assert shape_of(config).total == 149_014_272
    with pytest.raises(ValueError, match=message):
        shape_of({**config, **change})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"relative_attention": False}, "relative_attention = False: only True"),
        ({"position_biased_input": True}, "position_biased_input = True"),
        ({"share_att_key": False}, "share_att_key = False"),
        ({"norm_rel_ebd": "none"}, "norm_rel_ebd = 'none'"),
        ({"type_vocab_size": 2}, "type_vocab_size = 2"),
        ({"conv_kernel_size": 3}, "conv_kernel_size = 3"),
        ({"pooler_dropout": 0.1}, "pooler_dropout = 0.1"),
        ({"pos_att_type": ["c2p"]}, r"pos_att_type = \['c2p'\]: only 'p2c|c2p'"),
        ({"position_buckets": -1}, "position_buckets = -1"),
        ({"embedding_size": 128}, "embedding_size = 128"),
    ],
)
def test_a_deberta_of_another_kind_than_version_3_is_refused(change, message, tiny_model):
    config = json.loads((tiny_model("deberta-v2").path / "config.json").read_text(encoding="utf-8"))
    assert not shape_of({**config, "pos_att_type": "p2c|c2p"}).gated
    with pytest.raises(ValueError, match=message):
        shape_of({**config, **change})


def test_a_method_with_gates_of_examples_is_refused_on_deberta(tiny_model):
    with pytest.raises(ValueError, match=r"UniPELT scales LoRA .* embeddings of distances"):
        METHODS["unipelt"](length=3, r=4, rank=2).check(tiny_model("deberta-v2").shape)


@pytest.mark.parametrize("family", NEWER)
def test_padding_to_recurring_sizes_changes_no_loss(family, tiny_model):
    """As on a GPU, where steps are replayed: other lengths, fillers and padded places."""
    captured, data = fake_steps(), make_data(train=48, test=6, low=2, high=16)
    plain, padded = (train(tiny_model(family), PADDED, data, steps, epochs=2) for steps in (None, captured))
    assert losses(padded) == pytest.approx(losses(plain), abs=1e-5)
    assert captured.replays > 5, captured.refused


def test_an_mpnet_with_another_number_of_ranges_is_refused():
    config = transformers.MPNetConfig(max_position_embeddings=514).to_dict()
    assert shape_of(config).total == 109_486_464
    with pytest.raises(ValueError, match="relative_attention_num_buckets = 64: only 32"):
        shape_of({**config, "relative_attention_num_buckets": 64})
