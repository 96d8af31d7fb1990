"""Adapters removed from spans of layers after training: a second formula, other trials, bits, restarts."""

import json
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch

from orchestrator.ledger import read as read_records
from orchestrator.tracking.run_projection import RunProjection
from search_spaces.events import LedgerRecord, SweepOpened
from search_spaces.language import Recipe
from search_spaces.records import Ablation, Outcome
from tests.fixtures import fakes as fakes
from tests.fixtures.method_settings import SMALL
from tests.fixtures.plain_adapters import PlainAdapters
from tests.fixtures.plain_encoder import PlainEncoder
from tests.fixtures.trials import make_data, make_trial
from tests.trainables.methods.test_methods_adapters import leaves, prepare, stir
from trainables.backbone.backbone import Backbone
from trainables.methods import METHODS
from trainables.training.engine import Engine
from trainables.training.layer_ablation import ablate, spans_of, without
from trainables.worker.trial_runner import TrialRunner

CPU = torch.device("cpu")
SITES = ("attention.output", "ffn.output")
REMOVABLE = [name for name, kind in METHODS.items() if kind.removed_at_zero]
SHORT = Recipe(epochs=2, patience=9)


def final(method="adapter", seed=1, **settings):
    trial = make_trial(method, seed=seed, lr=1e-2, recipe=SHORT, **(settings or SMALL[method]))
    return type(trial)(**{**vars(trial), "phase": "final", "ablated": True})


def trained(model, trials, data):
    """An engine in which all trials have ended, and their states."""
    engine = Engine(Backbone.load(model, CPU))
    states = [engine.add_trial(trial, data) for trial in trials]
    while not all(state.done for state in states):
        engine.step()
    return engine, states


def correlation(values, split):
    """Pearson's, in percent points: it changes with the last digits of every output."""
    return 100 * np.corrcoef(np.asarray(values), split.labels)[0, 1]


def one_by_one(logits_of, split):
    """The output for each example; `logits_of` takes its ids."""
    ends = zip(split.offsets, split.offsets[1:], strict=False)
    return [logits_of(torch.from_numpy(split.ids[a:b].astype(np.int64))).item() for a, b in ends]


def stirred(model, method, settings):
    """A trial of a regression task with values of no meaning: engine, state, layout, and its tensors by name."""
    engine, state, stack = prepare(model, method, settings, make_data(seed=3, outputs=1))
    stir(stack.parameters)
    state.best = stack.parameters.values[0].clone()
    return engine, state, stack.parameters.layout, {n: v.detach() for n, v in leaves(stack.parameters).items()}


def test_the_methods_that_the_paper_and_its_kind_have_can_be_removed():
    assert {"adapter", "madapter", "sparse_adapter", "pfeiffer", "parallel", "lora"} <= set(REMOVABLE)
    assert not {"full", "layer_norm", "dora", "pissa", "propetl", "prefix"} & set(REMOVABLE)


@pytest.mark.parametrize("family", ["tiny_bert", "tiny_roberta"])
@pytest.mark.parametrize("method", REMOVABLE)
def test_without_all_layers_only_layer_norms_and_head_are_left(method, family, request):
    """Holds every method's declaration against a plain encoder that knows no method."""
    model = request.getfixturevalue(family)
    engine, state, layout, values = stirred(model, method, SMALL[method])
    found = ablate(engine.backbone, state, layout)
    kept = {n: v for n, v in values.items() if n.startswith(("norm.", "head."))}
    plain = correlation(one_by_one(PlainEncoder(model, kept).logits, state.data.validation), state.data.validation)
    assert found.spans[0][-1] == pytest.approx(plain, abs=1e-2)
    assert abs(found.whole - plain) > 0.1, "the example shows nothing"


@pytest.mark.parametrize(
    ("method", "settings", "formula"),
    [
        ("adapter", {"r": 4}, ("houlsby_variant", {"variant": "none"})),
        ("pfeiffer", {"r": 4}, ("pfeiffer", {})),
        ("parallel", {"r": 4, "scale": 4.0}, ("parallel", {"scale": 4.0})),
    ],
)
def test_each_span_scores_as_the_second_formula_with_its_parameters_zeroed(method, settings, formula, tiny_bert):
    engine, state, layout, _ = stirred(tiny_bert, method, settings)
    found, split = ablate(engine.backbone, state, layout), state.data.validation
    for first, last in spans_of(2):
        _, _, _, values = stirred(tiny_bert, method, settings)
        for layer, site, name in product(range(first, last + 1), SITES, ("up", "up_bias")):
            values.get(f"{layer}.{site}.{name}", torch.zeros(1)).zero_()
        outputs = PlainAdapters(tiny_bert, *formula, values).logits(split, np.arange(len(split)))[:, 0]
        assert found.spans[first][last - first] == pytest.approx(correlation(outputs, split), abs=1e-2), (first, last)


def test_the_intact_score_is_the_best_epochs(tiny_bert):
    engine, (state,) = trained(tiny_bert, [final()], make_data())
    found = engine.ablate(state.trial.id)
    assert found.whole == state.progress[-1].best_score
    assert [len(scores) for scores in found.spans] == [2, 1]
    assert found.seconds > 0


def test_what_was_trained_is_unchanged_to_the_last_bit_and_costs_no_epoch_its_seconds(tiny_bert):
    data = make_data()
    engine, states = trained(tiny_bert, [final(seed=s) for s in (1, 2)], data)
    parameters, started = engine._stacks[0].parameters, [state.started for state in states]
    before = [t.clone() for t in (parameters.values, parameters.moments, *(state.best for state in states))]
    found = engine.ablate(states[0].trial.id)
    after = (parameters.values, parameters.moments, *(state.best for state in states))
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))
    assert [state.started - then for state, then in zip(states, started, strict=True)] == pytest.approx(
        [found.seconds] * 2
    )


def test_other_trials_change_no_score(tiny_bert):
    data = make_data()
    trials = [final(seed=1), final("lora", seed=2), final("madapter", seed=3), final(seed=4)]
    engine, _ = trained(tiny_bert, trials, data)
    for trial in trials:
        alone, _ = trained(tiny_bert, [trial], data)
        ours, theirs = engine.ablate(trial.id), alone.ablate(trial.id)
        assert (ours.whole, ours.spans) == (theirs.whole, theirs.spans)


def test_a_method_that_zeros_do_not_remove_has_no_map(tiny_bert):
    engine, (state,) = trained(tiny_bert, [final("layer_norm")], make_data())
    assert engine.ablate(state.trial.id) is None


def test_only_the_spans_own_layers_are_touched(tiny_bert):
    _, _, stack = prepare(tiny_bert, "adapter", {"r": 4}, make_data())
    stir(stack.parameters)
    row, layout = stack.parameters.values[0], stack.parameters.layout
    changed = {e.name for e in layout.entries if (row != without(row, layout, (1, 1)))[e.start : e.stop].any()}
    assert changed == {f"1.{site}.{name}" for site in SITES for name in ("up", "up_bias")}


class Killed(BaseException):
    """The process is gone."""


def report_of(model, folder, trial, ends=lambda resident: None):
    """Train a resident to its end, in a fresh engine; its last report, as it travels."""
    resident = TrialRunner(trial, Engine(Backbone.load(model, CPU)), make_data(), folder, 1.0)
    resident.num_requested = trial.recipe.epochs
    ends(resident)
    while resident.may_train(0):
        resident.engine.step()
        resident.finish_epoch()
    reports = []
    while resident.has_report:
        reports.append(resident.next_report())
    return json.loads(json.dumps(reports[-1].to_json()))


def ablation_of(report):
    found = Outcome.from_json(report["outcome"]).ablation
    return found.whole, found.spans


def test_a_final_killed_while_it_is_ablated_repeats_that(tiny_bert, tmp_path):
    expected = ablation_of(report_of(tiny_bert, tmp_path / "whole", final()))

    def kill(resident):
        def ablate(trial_id):
            raise Killed

        resident.engine.ablate = ablate

    with pytest.raises(Killed):
        report_of(tiny_bert, tmp_path / "killed", final(), kill)
    assert ablation_of(report_of(tiny_bert, tmp_path / "killed", final())) == expected


def test_a_final_killed_before_it_was_heard_of_is_not_ablated_again(tiny_bert, tmp_path):
    first = report_of(tiny_bert, tmp_path, final())

    def forbid(resident):
        resident.engine.ablate = None

    assert report_of(tiny_bert, tmp_path, final(), forbid) == first


def test_trials_that_did_not_ask_for_it_have_none(tiny_bert, tmp_path):
    plain = type(final())(**{**vars(final()), "ablated": False})
    assert report_of(tiny_bert, tmp_path, plain)["outcome"]["ablation"] is None


def test_an_ablation_survives_json():
    found = Ablation(whole=80.5, spans=((70.0, 50.0), (75.25,)), seconds=1.5)
    assert Ablation.from_json(json.loads(json.dumps(found.to_json()))) == found
    outcome = Outcome(state="DONE", reason="epochs", epochs=2, ablation=found)
    assert Outcome.from_json(json.loads(json.dumps(outcome.to_json()))) == outcome


def test_asking_for_it_makes_another_trial_and_leaves_the_others_their_ids():
    asked = final()
    plain = type(asked)(**{**vars(asked), "ablated": False})
    assert "ablated" not in plain.to_json()
    assert plain.id != asked.id
    for trial in (asked, plain):
        assert type(trial).from_json(json.loads(json.dumps(trial.to_json()))) == trial


def test_the_ledger_and_mlflow_keep_it_whenever_the_driver_dies(tmp_path, monkeypatch):
    known = Ablation(whole=80.5, spans=((70.0, 50.0), (75.25,)), seconds=1.5)
    real = fakes.end_of

    def end_of(trial, last):
        outcome, test = real(trial, last)
        return (replace(outcome, ablation=known) if trial.phase == "final" else outcome), test

    monkeypatch.setattr(fakes, "end_of", end_of)
    space = fakes.make_space()
    for reports in (150, 5, 3):
        with pytest.raises(fakes.Died):
            fakes.drive(space, tmp_path, dies_at=reports)
    finals = [e for cell in fakes.drive(space, tmp_path).searches.values() for e in cell.finals]
    assert len(finals) == 8
    assert all(entry.outcome.ablation == known for entry in finals)

    runs, opening = RunProjection(), LedgerRecord(seq=0, time=0.0, event=SweepOpened(manifest={"sweep": "s"}))
    for record in (opening, *read_records(tmp_path / "sweep")):
        runs.apply(record)
    files = {edit.run.key.trial: edit.files for edit in runs.take() if "ablation.json" in edit.files}
    assert set(files) == {entry.trial.id for entry in finals}
    assert all(Ablation.from_json(json.loads(one["ablation.json"])) == known for one in files.values())
