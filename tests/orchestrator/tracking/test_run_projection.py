"""What the projection makes of a ledger's records, without a store."""

import json

from orchestrator.tracking.run_edits import Key
from orchestrator.tracking.run_projection import RunProjection
from search_spaces import keys
from tests.fixtures.tracking_sweep import (
    FINISHED,
    SEARCHED,
    SWEEP,
    asked,
    ended,
    make_trial,
    numbered,
    progress,
    started,
)

CELL, TRIAL = Key("cell", "tiny/rte/adapter"), Key("trial", "tiny/rte/adapter", SEARCHED.id)
WON = {"event": "winner", "cell": {"model": "tiny", "task": "rte", "method": "adapter"}, "id": SEARCHED.id}


def test_a_sweeps_file_names_the_code_of_earlier_calls():
    runs = RunProjection()
    for commit, dirty in (("a", False), ("b", True), ("a", False), ("c", False)):
        runs.apply(*numbered([{**SWEEP, "manifest": {"sweep": "s", "commit": commit, "dirty": dirty}}]))
    (edit,) = runs.take()
    found = json.loads(edit.files[keys.SWEEP_FILE])
    assert (found["commit"], found["earlier_code"]) == ("c", [["a", False], ["b", True]])


def test_the_loss_of_a_regression_is_there_in_the_unit_of_its_targets_too():
    def losses(**task):
        runs = RunProjection()
        events = [{**SWEEP, "manifest": {"sweep": "s", "tasks": {"rte": task}}}, asked(SEARCHED), started(SEARCHED)]
        for record in numbered([*events, progress(SEARCHED, 1, 60.0, loss=0.5), progress(SEARCHED, 2, 0.0, loss=None)]):
            runs.apply(record)
        edit = next(edit for edit in runs.take() if edit.run.key.kind == "trial")
        return [(point.key, point.value, point.step) for point in edit.points if "loss" in point.key]

    assert losses() == [("train/loss", 0.5, 1)]
    assert losses(targets={"mean": 7.0, "std": 100.0}) == [
        ("train/loss", 0.5, 1),
        ("train/loss_target_units", 5000.0, 1),
    ]


def edits(*events):
    runs = RunProjection()
    for record in numbered([SWEEP, *events]):
        runs.apply(record)
    return {edit.run.key: edit for edit in runs.take()}


def test_trials_that_asha_stops_are_killed_and_failures_failed():
    def status(state, reason):
        return edits(asked(SEARCHED), started(SEARCHED), ended(SEARCHED, state, reason))[TRIAL].status

    states = {"DONE": "epochs", "STOPPED": "asha", "FAILED": "out of memory", "INVALID": "rank"}
    assert [status(*item) for item in states.items()] == ["FINISHED", "KILLED", "FAILED", "FAILED"]


def test_the_run_of_a_cell_has_the_best_validation_score_so_far_by_the_number_of_trials_that_ended():
    others = [make_trial(lr=lr) for lr in (1e-5, 1e-4, 1e-3)]
    results = [("DONE", 60.0), ("STOPPED", 99.0), ("FAILED", 0.0), ("DONE", 55.0)]
    events = []
    for trial, (state, score) in zip([SEARCHED, *others], results, strict=True):
        events += [asked(trial), ended(trial, state, "", best_epoch=1, best_score=score)]
    events.append(ended(others[2], "DONE", "", best_epoch=1, best_score=70.0))  # again, after a restart
    found = [(point.key, point.step, point.value) for point in edits(*events)[CELL].points]
    best = [(1, 60.0), (4, 70.0)]
    assert found == [("validation/best_accuracy", step, value) for step, value in best]


def test_the_run_of_a_cell_gets_the_winners_hyperparameters_once_no_larger_budget_can_change_them():
    searched = (asked(SEARCHED), ended(SEARCHED, best_epoch=1, best_score=60.0), WON)
    budget = {"event": "curtailed", "budget": "1h", "allowed": 1.0, "spent": 1.0, "needed": 1.0}
    place = {"model": "tiny", "task": "rte", "method": "adapter"}
    won = {"lr": "0.0005", "batch_size": "16", "epochs": "2", "r": "8", "gate": "true"}
    assert edits(*searched)[CELL].params == place
    assert edits(*searched, FINISHED)[CELL].params == {**place, **won}
    assert edits(budget, *searched, FINISHED)[CELL].params == place
    second = make_trial(r=8, gate=True, lr=1e-5, search=1)
    also = (asked(second), ended(second, best_epoch=1, best_score=60.0), {**WON, "id": second.id})
    assert edits(*searched, *also, FINISHED)[CELL].params == {**place, **won, "lr": "0.0005 | 1e-05"}
