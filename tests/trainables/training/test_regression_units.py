"""Scores of a regression do not depend on the unit of its targets, at no epoch and in no part of the way from file to result."""

import csv
import random
from dataclasses import replace

import numpy as np
import pytest
import torch

from search_spaces.language import FileTask, Recipe
from tests.fixtures.trials import make_trial
from trainables.backbone.backbone import Backbone
from trainables.tasks.forms.regression import MIN_SPREAD, REGRESSION, Regression
from trainables.tasks.metrics import compute_metrics
from trainables.tasks.task_data import Task
from trainables.tasks.task_loading import load
from trainables.tasks.tokens import prepare, read
from trainables.training.engine import Engine

# The number of certain words in a text is the target k; STS-B has targets such as 3.8.
UNITS = {
    "k": lambda k: k,
    "thousands": lambda k: 1000 * k + 5,
    "year": lambda k: 1990 + k,
    "price": lambda k: 250_000 + 15_000 * k,
    "tiny": lambda k: 1e-4 * k,
    "time": lambda k: 1.7e9 + 0.25 * k,  # float32 has steps of 128 there
    "sts-b": lambda k: 0.2 * k + 3.8,
}


def load_in(unit, folder, metric="pearson", **options):
    """A task of 140 train and 40 test texts of the tiny encoders' words, with targets in this unit."""
    draw = random.Random(3)
    for part, number in (("train", 140), ("test", 40)):
        with (folder / f"{part}.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["text", "y"])
            for _ in range(number):
                k = draw.randint(0, 6)
                words = [f"w{draw.randint(10, 13)}" for _ in range(k)] + [
                    f"w{draw.randint(50, 90)}" for _ in range(6 - k)
                ]
                writer.writerow([" ".join(draw.sample(words, 6)), unit(k)])
    task = FileTask(name="units", train="train.csv", test="test.csv", text="text", label="y", regression=True)
    limits = {"train_examples": 0, "test_examples": 0} | options
    return load(replace(task, metric=metric), data_dir=None, folder=folder, **limits)


def train(model, data, epochs=3):
    """(scores of all epochs, losses of all epochs, result of the test split)."""
    engine = Engine(Backbone.load(model, torch.device("cpu")))
    trial = make_trial("adapter", lr=3e-3, recipe=Recipe(epochs=epochs, patience=9), r=8)
    state = engine.add_trial(trial, data)
    while not state.done:
        engine.step()
    return [p.score for p in state.progress], [p.loss for p in state.progress], engine.test(trial.id)


@pytest.fixture(scope="module")
def trained(tiny_bert, tmp_path_factory):
    """A function from the name of a unit to the data and the training in it, done once."""
    from functools import cache

    @cache
    def get(name, metric="pearson"):
        folder = tmp_path_factory.mktemp(name)
        loaded = load_in(UNITS[name], folder, metric)
        data = read(prepare(loaded, str(tiny_bert.path), 32, folder / "tokens"))
        return loaded, data, *train(tiny_bert, data)

    return get


@pytest.mark.parametrize(
    ("name", "metric"), [*((name, "pearson") for name in UNITS if name != "k"), ("time", "spearman")]
)
def test_scores_and_losses_of_every_epoch_are_those_of_another_unit(trained, name, metric):
    _, _, scores, losses, test = trained("k", metric)
    _, _, other_scores, other_losses, other_test = trained(name, metric)
    assert len(scores) == 3
    assert np.ptp(scores) > 0.1
    assert other_scores == pytest.approx(scores, abs=0.02)
    assert other_losses == pytest.approx(losses, rel=1e-3)
    assert other_test.metrics == pytest.approx(test.metrics, abs=0.02)
    assert next(iter(test.metrics)) == metric


@pytest.mark.parametrize("name", UNITS)
def test_predictions_and_labels_are_stored_in_the_unit_of_the_file(trained, name):
    loaded, _, _, _, test = trained(name)
    step = UNITS[name](1) - UNITS[name](0)
    assert np.allclose(test.labels, loaded.test.labels, rtol=0, atol=1e-5 * step)
    assert UNITS[name](-4) < min(test.predictions) < max(test.predictions) < UNITS[name](10)
    assert not test.collapsed


def test_all_units_share_one_split_and_none_shares_a_fingerprint(trained):
    loaded = [trained(name)[0] for name in UNITS]
    assert len({each.split_indices for each in loaded}) == 1
    assert len({each.fingerprint for each in loaded}) == len(UNITS)


def test_trials_of_tasks_in_different_units_share_a_stack_and_answer_each_in_its_own(trained, tiny_bert):
    engine = Engine(Backbone.load(tiny_bert, torch.device("cpu")))
    recipe = Recipe(epochs=3, patience=9)
    trials = {name: make_trial("adapter", lr=3e-3, recipe=recipe, r=8, seed=1) for name in ("k", "price")}
    trials = {name: replace(trial, split=name) for name, trial in trials.items()}
    states = [engine.add_trial(trial, trained(name)[1]) for name, trial in trials.items()]
    while not all(state.done for state in states):
        assert len(engine._stacks) == 1
        engine.step()
    for name, trial in trials.items():
        alone = trained(name)[-1]
        together = engine.test(trial.id)
        assert together.labels == alone.labels
        assert together.predictions == pytest.approx(alone.predictions, rel=1e-4)


@pytest.mark.parametrize("name", ["k", "time"])
def test_the_tokens_file_has_standardised_targets_and_what_turns_them_back(trained, name):
    loaded, data, *_ = trained(name)
    targets = np.array(loaded.train.labels)
    assert data.task.form == loaded.task.form == Regression(data.task.form.mean, data.task.form.std)
    assert data.task.form.mean == pytest.approx(targets.mean(), rel=1e-12)
    assert data.task.form.std == pytest.approx(targets.std(), rel=1e-6)
    assert data.train.labels.dtype == np.float32
    assert data.train.labels.mean() == pytest.approx(0, abs=1e-6)
    assert data.train.labels.std() == pytest.approx(1, abs=1e-6)


def test_mean_and_deviation_are_those_of_the_train_examples_that_are_trained_on(tmp_path):
    few, whole = (load_in(UNITS["k"], tmp_path, train_examples=number) for number in (20, 0))
    assert len(few.train) == 20
    assert few.task.form == REGRESSION.fitted(few.train.labels) != whole.task.form


def test_a_task_comes_back_from_its_record_and_one_that_is_not_fitted_has_the_record_of_the_first_release():
    task = Task(name="t", title="T", metrics=("pearson",), form=REGRESSION, outputs=1, source="files", test_source="t")
    assert task.to_record()["form"] == "regression"
    assert "form_fields" not in task.to_record()
    fitted = replace(task, form=REGRESSION.fitted([1.0, 2.0, 4.0]))
    assert Task.from_record(fitted.to_record()) == fitted
    assert Task.from_record(task.to_record()) == task


def test_train_targets_that_are_all_equal_are_refused_with_a_way_out():
    with pytest.raises(ValueError, match=r"every target of the 20 train examples is 2\.5.*train_examples"):
        REGRESSION.fitted([2.5] * 20)


@pytest.mark.parametrize(("spread", "collapsed"), [(0.0, True), (0.5, True), (2.0, False), (50.0, False)])
def test_predictions_that_hardly_differ_are_called_collapsed_although_they_correlate(spread, collapsed):
    """As a head that has not left its starting point does; `spread` in percent of the targets' standard deviation."""
    labels = np.random.default_rng(0).normal(size=200).astype(np.float32)
    task = Task(
        name="t",
        title="T",
        metrics=("pearson",),
        form=Regression(mean=250_000.0, std=30_000.0),
        outputs=1,
        source="files",
        test_source="t",
    )
    assert MIN_SPREAD == 0.01
    found = compute_metrics(task, 0.01 * spread * labels[:, None] / labels.std() + 0.3, labels)
    assert found.collapsed == collapsed
    assert found.score == pytest.approx(100 if spread else 0, abs=1e-3)
    assert np.mean(found.predictions) == pytest.approx(250_000 + 0.3 * 30_000, rel=1e-3)
