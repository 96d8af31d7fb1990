"""Every form of the dict keeps the same promises; a task is made from it without a branch elsewhere."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from trainables.tasks.forms import FORMS
from trainables.tasks.forms.classification import CLASSIFICATION
from trainables.tasks.forms.form import LabelColumn
from trainables.tasks.forms.regression import REGRESSION
from trainables.tasks.metrics import FORMULAS, compute_metrics
from trainables.tasks.task_data import Task

VALUES = {"classification": ("b", "a", "a", "b", "c", "a"), "regression": (0.5, "2", 1, 4.5, 3, 2.5)}


def read(form):
    column = LabelColumn(path=Path("t.csv"), name="label", values=VALUES[form.name])
    found = form.read_labels([column], form.metrics[0])
    return np.asarray(found.values[0], np.float32), found.outputs


@pytest.mark.parametrize("form", FORMS.values(), ids=lambda form: form.name)
def test_a_form_reads_labels_predicts_and_trains_with_fitting_shapes(form):
    labels, outputs = read(form)
    assert outputs == (form.outputs or outputs)
    logits = torch.randn(2, 3, outputs, requires_grad=True)
    losses = form.losses(logits, torch.from_numpy(labels.reshape(2, 3)))
    assert losses.shape == (2, 3)
    assert (losses >= 0).all()
    losses.sum().backward()
    assert logits.grad.abs().sum() > 0
    predictions = form.predictions(logits.detach().flatten(0, 1).numpy())
    assert (predictions.shape, predictions.dtype) == ((6,), np.float64)
    strata = form.strata(labels)
    assert (strata.shape, strata.dtype.kind) == ((6,), "i")


@pytest.mark.parametrize("form", FORMS.values(), ids=lambda form: form.name)
def test_a_form_names_metrics_that_exist_and_reports_metrics_that_fit(form):
    assert set(form.metrics) <= set(FORMULAS)
    assert set(form.always_reported) <= set(form.metrics)


def test_fingerprint_keys_tell_the_forms_apart():
    assert len({form.fingerprint_key for form in FORMS.values()}) == len(FORMS)


@pytest.mark.parametrize("form", FORMS.values(), ids=lambda form: form.name)
def test_no_prediction_that_ignores_its_input_is_better_than_the_constant_one(form):
    """By the form's own loss for numbers, by accuracy for classes."""
    labels, outputs = read(form)
    constant = form.constant_outputs(labels.tolist(), len(labels), outputs)
    assert (constant == constant[0]).all()
    if form == REGRESSION:
        assert constant[0, 0] == pytest.approx(labels.mean())
    else:
        task = Task(name="t", title="T", metrics=("accuracy",), outputs=outputs, source="files", test_source="t")
        assert compute_metrics(task, constant, labels).score == pytest.approx(50.0)


def test_classes_are_trained_with_cross_entropy_and_numbers_with_the_squared_error():
    logits, classes = torch.randn(2, 3, 4), torch.tensor([[0.0, 3.0, 1.0], [2.0, 2.0, 0.0]])
    expected = -F.log_softmax(logits, -1).gather(-1, classes.long()[..., None])[..., 0]
    assert torch.allclose(CLASSIFICATION.losses(logits, classes), expected)
    assert torch.allclose(REGRESSION.losses(logits[..., :1], classes), (logits[..., 0] - classes) ** 2)
