"""Metrics against scikit-learn and scipy, and what collapsed and diverged models score."""

import json

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as reference

from trainables.tasks.forms.classification import CLASSIFICATION
from trainables.tasks.forms.regression import REGRESSION
from trainables.tasks.metrics import compute_metrics
from trainables.tasks.task_data import Task


def make_task(*metrics: str, regression: bool = False, outputs: int = 2) -> Task:
    return Task(
        name="t",
        title="T",
        metrics=metrics,
        form=REGRESSION if regression else CLASSIFICATION,
        outputs=1 if regression else outputs,
        source="files",
        test_source="t",
    )


ALL = ("accuracy", "f1", "matthews", "macro_f1", "precision", "recall")


@pytest.mark.parametrize("seed", range(20))
def test_binary_metrics_equal_scikit_learn_s(seed):
    draw = np.random.default_rng(seed)
    labels = draw.integers(0, 2, 50).astype(np.float32)
    outputs = draw.normal(size=(50, 2)) + np.eye(2)[labels.astype(int)]
    found = compute_metrics(make_task(*ALL), outputs, labels)
    predictions = outputs.argmax(1)
    expected = {
        "accuracy": reference.accuracy_score(labels, predictions),
        "f1": reference.f1_score(labels, predictions),
        "matthews": reference.matthews_corrcoef(labels, predictions),
        "macro_f1": reference.f1_score(labels, predictions, average="macro"),
        "precision": reference.precision_score(labels, predictions),
        "recall": reference.recall_score(labels, predictions),
    }
    assert found.metrics == pytest.approx({name: 100 * value for name, value in expected.items()})
    assert found.predictions == predictions.tolist()
    assert not found.collapsed


@pytest.mark.parametrize("seed", range(20))
def test_metrics_over_several_classes_equal_scikit_learn_s(seed):
    draw = np.random.default_rng(seed)
    labels = draw.integers(0, 4, 30).astype(np.float32)
    outputs = draw.normal(size=(30, 5)) + 2 * np.eye(5)[labels.astype(int)]
    found = compute_metrics(make_task("matthews", "macro_f1", outputs=5), outputs, labels).metrics
    predictions = outputs.argmax(1)
    assert found["matthews"] == pytest.approx(100 * reference.matthews_corrcoef(labels, predictions))
    assert found["macro_f1"] == pytest.approx(100 * reference.f1_score(labels, predictions, average="macro"))


@pytest.mark.parametrize("seed", range(20))
def test_correlations_equal_scipy_s_with_ties_too(seed):
    draw = np.random.default_rng(seed)
    labels = draw.integers(0, 6, 40).astype(np.float32)
    outputs = (labels + draw.normal(size=40)).round(1)[:, None].astype(np.float32)
    found = compute_metrics(make_task("pearson", "spearman", regression=True), outputs, labels).metrics
    assert found["pearson"] == pytest.approx(100 * stats.pearsonr(outputs[:, 0], labels).statistic)
    assert found["spearman"] == pytest.approx(100 * stats.spearmanr(outputs[:, 0], labels).statistic)


def test_the_score_is_the_first_metric_in_percent_points():
    labels = np.array([0, 1, 1, 1], np.float32)
    outputs = np.array([[1, 0], [0, 1], [0, 1], [1, 0]], np.float32)
    assert compute_metrics(make_task("accuracy", "f1"), outputs, labels).score == pytest.approx(75.0)
    assert compute_metrics(make_task("f1", "accuracy"), outputs, labels).score == pytest.approx(80.0)


def test_a_constant_class_has_no_matthews_correlation_and_is_called_collapsed():
    labels = np.array([0, 1, 1, 1], np.float32)
    found = compute_metrics(make_task("matthews", "accuracy"), np.tile([0.0, 1.0], (4, 1)), labels)
    assert found.metrics == pytest.approx({"matthews": 0.0, "accuracy": 75.0})
    assert found.collapsed


@pytest.mark.parametrize("noise", [0.0, 1e-7])
def test_a_constant_value_has_no_correlation_even_when_rounding_makes_it_waver(noise):
    labels = np.arange(8, dtype=np.float32)
    outputs = (3.0 + noise * labels)[:, None]
    found = compute_metrics(make_task("pearson", "spearman", regression=True), outputs, labels)
    assert found.metrics == {"pearson": 0.0, "spearman": 0.0}
    assert found.collapsed


@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("regression", [False, True])
def test_outputs_that_are_not_finite_count_as_a_constant_prediction(broken, regression):
    labels = np.array([0, 1, 1, 0, 1], np.float32)
    outputs = np.random.default_rng(0).normal(size=(5, 1 if regression else 2))
    outputs[3, 0] = broken
    names = ("pearson", "spearman") if regression else ("matthews", "accuracy")
    task = make_task(*names, regression=regression)
    found = compute_metrics(task, outputs, labels)
    assert found == compute_metrics(task, np.zeros_like(outputs), labels)
    assert found.collapsed
    assert found.score == 0.0
    json.dumps([found.metrics, found.predictions], allow_nan=False)


def test_correlation_of_a_reversed_prediction_is_minus_one_hundred():
    labels = np.arange(8, dtype=np.float32)
    found = compute_metrics(make_task("pearson", "spearman", regression=True), -labels[:, None], labels)
    assert found.metrics == pytest.approx({"pearson": -100.0, "spearman": -100.0})
