"""Packed rows give the numbers of the unpacked, padded Hugging Face model: logits and gradients to 1e-5."""

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification

from orchestrator.export.tensor_names import head_names
from search_spaces.language import Recipe
from tests.fixtures.method_settings import SMALL
from tests.fixtures.trials import make_data, make_trial
from trainables.backbone.backbone import Backbone
from trainables.backbone.families import FAMILIES
from trainables.backbone.packing import pack
from trainables.methods import METHODS
from trainables.tasks.forms.classification import CLASSIFICATION
from trainables.training.engine import Engine
from trainables.training.forward_pass import ForwardPass
from trainables.training.losses import losses_of
from trainables.training.parameter_layout import ParameterLayout
from trainables.training.segments import Segment
from trainables.training.stacked_parameters import StackedParameters


def padded(split, chosen):
    lengths = split.offsets[chosen + 1] - split.offsets[chosen]
    ids = torch.zeros(len(chosen), int(lengths.max()), dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, (i, n) in enumerate(zip(chosen, lengths, strict=True)):
        ids[row, :n] = torch.from_numpy(split.ids[split.offsets[i] : split.offsets[i] + n].astype(np.int64))
        mask[row, :n] = 1
    return ids, mask


def positions(model, mask):
    """RoBERTa counts positions by the padding token, which our made-up ids do not use; the others just count."""
    return torch.arange(mask.shape[1]).expand_as(mask) + FAMILIES[model.family].first_position


def hugging_face(model, layout, row):
    """Transformers' own classification model with the trial's head, and its encoder."""
    reference = AutoModelForSequenceClassification.from_pretrained(
        model.path, num_labels=2, attn_implementation="eager"
    )
    values = {e.name: row[e.start : e.stop].view(e.shape) for e in layout.entries}
    with torch.no_grad():
        for ours, theirs in head_names(FAMILIES[model.family]).items():
            if ours in values:
                value = values[ours]
                reference.get_parameter(theirs).copy_(value.T if value.dim() > 1 else value)
    return reference.eval(), reference.base_model


@pytest.mark.parametrize("explicit", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_logits_and_gradients_equal_the_padded_model(family, explicit, tiny_model):
    model = tiny_model(family)
    backbone, data = Backbone.load(model, torch.device("cpu")), make_data(low=3, high=30)
    layout = ParameterLayout(METHODS["full"](), backbone, 2)
    row = layout.initial_values(7, backbone)
    # Away from zero, so that a head with another activation differs.
    row[layout.by_name["head.out"].start : layout.by_name["head.out"].stop] *= 20
    parameters = StackedParameters(layout, backbone, make_trial("full").recipe, row[None])
    chosen = np.array([3, 11, 0, 25, 8])
    rows = pack([(data.train, chosen)], model.shape.heads, torch.device("cpu"), reads_last=backbone.shape.reads_last)
    segment = Segment(parameters, 0, 1)
    logits = ForwardPass(backbone, [segment], rows, None, twice_differentiable=explicit).logits()[0]
    losses_of(logits, rows, segment, CLASSIFICATION).sum().backward()

    reference, encoder = hugging_face(model, layout, row)
    ids, mask = padded(data.train, chosen)
    labels = torch.from_numpy(data.train.labels[chosen]).long()
    out = reference(input_ids=ids, attention_mask=mask, position_ids=positions(model, mask), labels=labels)
    out.loss.backward()

    assert torch.allclose(logits[0], out.logits, atol=1e-5)
    theirs = dict(encoder.named_parameters())
    compared = 0
    for name, parameter in backbone.module.named_parameters():
        if theirs[name].grad is not None:
            assert torch.allclose(parameter.grad, theirs[name].grad, atol=1e-5), name
            compared += 1
    assert compared >= len(theirs) - 2


@pytest.mark.parametrize("outputs", [1, 3])
def test_evaluation_in_long_rows_equals_one_example_at_a_time(outputs, tiny_bert, monkeypatch):
    data, trial = make_data(outputs=outputs, test=40), make_trial("adapter", r=4)
    results = []
    for tokens in (1, 100_000):
        monkeypatch.setattr("trainables.training.evaluation.ROW_TOKENS", tokens)
        engine = Engine(Backbone.load(tiny_bert, torch.device("cpu")))
        engine.add_trial(trial, data)
        results.append(engine.test(trial.id).predictions)
    assert results[0] == pytest.approx(results[1], abs=1e-6)


@pytest.mark.parametrize("high", [9, 30])
def test_tokens_moved_as_a_whole_give_the_same_numbers(high, tiny_bert):
    """Equal lengths, where nothing moves, and others; with first tokens in the last layer."""
    found = []
    for heads in (tiny_bert.shape.heads, 1):
        engine = Engine(Backbone.load(tiny_bert, torch.device("cpu")))
        engine.backbone.indexed_heads = heads
        states = [
            engine.add_trial(make_trial(m, seed=s, r=4), make_data(low=8, high=high))
            for s, m in enumerate(("adapter", "lora"))
        ]
        for _ in range(6):
            engine.step()
        found.append(torch.cat([engine.state(state.trial.id)[1]["values"] for state in states]))
    assert torch.equal(*found)


@pytest.mark.parametrize("method", sorted(SMALL))
def test_tokens_moved_as_a_whole_train_and_test_every_method_alike(method, tiny_bert):
    found = []
    for heads in (tiny_bert.shape.heads, 1):
        engine = Engine(Backbone.load(tiny_bert, torch.device("cpu")))
        engine.backbone.indexed_heads = heads
        trial = make_trial(method, seed=1, recipe=Recipe(epochs=2, patience=9), **SMALL[method])
        state = engine.add_trial(trial, make_data(train=16, test=9, low=3, high=12))
        while not state.done:
            engine.step()
        found.append([*(p.loss for p in state.progress), *engine.test(trial.id).predictions])
    assert found[1] == pytest.approx(found[0], abs=1e-6)


def test_rows_of_different_length_do_not_touch(tiny_bert):
    """A row's logits are the same beside a much longer row."""
    backbone, data = Backbone.load(tiny_bert, torch.device("cpu")), make_data(low=3, high=40)
    layout = ParameterLayout(METHODS["adapter"](r=4), backbone, 2)
    parameters = StackedParameters(
        layout, backbone, make_trial().recipe, torch.stack([layout.initial_values(s, backbone) for s in (1, 2)])
    )
    lengths = np.diff(data.train.offsets)
    short, long = np.argsort(lengths)[:3], np.argsort(lengths)[-9:]

    def logits(batches, rows):
        packed = pack(batches, tiny_bert.shape.heads, torch.device("cpu"))
        return ForwardPass(backbone, [Segment(parameters, 0, len(batches), rows)], packed, None).logits()[0]

    both = logits([(data.train, short), (data.train, long)], slice(0, 2))
    alone = logits([(data.train, short)], slice(0, 1))
    assert torch.allclose(both[0, :3], alone[0], atol=1e-6)
