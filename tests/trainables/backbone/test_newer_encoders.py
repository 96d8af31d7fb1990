"""MPNet, ModernBERT and DeBERTa-v3: several methods in one pass give what transformers' own model gives for each of them alone.

And a check that cannot fail is none: with a part of the forward pass left out or changed, the same comparison fails.
"""

import numpy as np
import pytest
import torch

from tests.fixtures.transformers_reference import Reference
from tests.fixtures.trials import make_data, make_trial
from trainables.backbone.backbone import Backbone
from trainables.backbone.families import FAMILIES
from trainables.backbone.packing import pack
from trainables.methods import METHODS
from trainables.training.forward_pass import ForwardPass
from trainables.training.parameter_layout import ParameterLayout
from trainables.training.segments import Segment
from trainables.training.stacked_parameters import StackedParameters

CPU = torch.device("cpu")
NEWER = ["mpnet"]
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
    lengths = split.offsets[chosen + 1] - split.offsets[chosen]
    ids = torch.zeros(len(chosen), int(lengths.max()), dtype=torch.long)
    for row, (i, n) in enumerate(zip(chosen, lengths, strict=True)):
        ids[row, :n] = torch.from_numpy(split.ids[split.offsets[i] :][:n].astype(np.int64))
    places = torch.arange(ids.shape[1])
    first = FAMILIES[model.family].first_position
    more = {"position_ids": first + places[None]} if first else {}
    return {"input_ids": ids, "attention_mask": (places < torch.from_numpy(lengths)[:, None]).long(), **more}


@pytest.mark.parametrize("explicit", [False, True], ids=["fused", "explicit"])
@pytest.mark.parametrize("family", NEWER)
def test_mixed_trials_equal_transformers(family, explicit, tiny_model):
    logits, gradients = furthest(tiny_model(family), explicit)
    assert logits < 1e-5
    assert gradients < 1e-5


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


WRONG = [
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


def test_an_mpnet_with_another_number_of_ranges_is_refused():
    from transformers import MPNetConfig

    from trainables.backbone.models import shape_of

    config = MPNetConfig(num_hidden_layers=2).to_dict()
    shape_of(config)
    with pytest.raises(ValueError, match="relative_attention_num_buckets = 64: only 32"):
        shape_of({**config, "relative_attention_num_buckets": 64})
