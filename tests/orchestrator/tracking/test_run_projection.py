"""What the projection makes of a ledger's records, without a store."""

import json

from orchestrator.tracking.run_projection import RunProjection
from search_spaces import keys
from tests.fixtures.tracking_sweep import SEARCHED, SWEEP, asked, numbered, progress, started


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

    assert losses() == [("loss", 0.5, 1)]
    assert losses(targets={"mean": 7.0, "std": 100.0}) == [("loss", 0.5, 1), ("loss_target_units", 5000.0, 1)]
