"""The report in MLflow: files and description of the sweep's run, results of the cells' runs; twice is as good as once."""

import json
import math
import shutil

import pytest

from orchestrator.tracking import mlflow_store
from orchestrator.tracking.publication import description, publish
from orchestrator.tracking.tracker import deliver_all
from search_spaces import keys
from tests.fixtures.tracking_sweep import WHOLE, client, content, numbered, runs_of, write_predictions
from tests.orchestrator.tracking.test_mlflow_store import Breaking

RECORDS = numbered(WHOLE)
RESUMED = {"event": "extended", "cells": []}
ADAPTER = ("cell", "tiny/rte/adapter", "")
ROW = {
    "model": "tiny",
    "task": "rte",
    "method": "adapter",
    "title": "Adapter",
    "metric": "accuracy",
    "mean": 64.25,
    "sd": 1.5,
    "n": 3,
    "low": 60.0,
    "high": 68.5,
    "behind": 2.5,
    "p": 0.0123,
    "verdict": "worse",
    "configuration": "lr 0.0005, r 8",
    "validation": 65.5,
    "trained": 20,
    "trained_percent": 2.0,
    "constant_prediction": 52.0,
}
SEARCHING = {**ROW, **dict.fromkeys(("mean", "sd", "low", "high", "behind", "p", "trained", "trained_percent")), "n": 0}


def write_report(folder, *rows):
    report = folder / "report"
    (report / "figures").mkdir(parents=True, exist_ok=True)
    (report / "summary.md").write_text("# Made up\n\nUse *Adapter*.\n\n## Results\n\nnumbers\n")
    (report / "figures" / "curves.png").write_bytes(b"\x89PNG")
    (report / "notes.txt").write_text("of the user, not of the report")
    table = {"columns": list(ROW), "data": [list(row.values()) for row in rows]}
    (report / "leaderboard.json").write_text(json.dumps(table))
    return report, ["figures/curves.png", "leaderboard.json", "summary.md"]


@pytest.fixture
def sweep(schema, tmp_path):
    write_predictions(tmp_path)
    uri = f"sqlite:///{shutil.copy(schema, tmp_path / 'a.db')}"
    deliver_all(uri, tmp_path / "artifacts", tmp_path, RECORDS)
    return uri, tmp_path


def add(sweep, *rows):
    uri, folder = sweep
    report, files = write_report(folder, *rows)
    return publish(uri, folder / "artifacts", folder, RECORDS, report, files)


def test_the_runs_say_what_the_report_says(sweep, monkeypatch):
    assert add(sweep, ROW) == ""
    uri = sweep[0]
    run = next(run for run in runs_of(uri) if run.data.tags[keys.KIND] == "sweep")
    files = {
        file.path
        for name in ("", "report", "report/figures")
        for file in client(uri).list_artifacts(run.info.run_id, name)
    }
    wanted = {"sweep.json", "made_up.py", "leaderboard.json", "report", "report/summary.md", "report/leaderboard.json"}
    assert files == {*wanted, "report/figures", "report/figures/curves.png"}
    assert json.loads(run.data.tags["mlflow.loggedArtifacts"]) == [{"path": "leaderboard.json", "type": "table"}]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)  # which `load_table` searches
    table = client(uri).load_table(run.info.experiment_id, "leaderboard.json", [run.info.run_id])
    assert (table["mean"][0], table["verdict"][0]) == (64.25, "worse")
    note = run.data.tags["mlflow.note.content"]
    assert note.startswith("[Report](#/experiments/")
    assert "\n\nUse *Adapter*.\n\n" in note
    assert "| tiny | rte | Adapter | 64.25 ± 1.50 (accuracy) | 3 | 0.012 | worse | lr 0.0005, r 8 |" in note
    assert "[Charts of the methods](#/experiments/" in note
    assert run.data.metrics["test/adapter"] == 64.25
    cell = content(uri)[ADAPTER]
    assert (cell["tags"][keys.VERDICT], cell["tags"][keys.CONFIGURATION]) == ("worse", "lr 0.0005, r 8")
    values = {name: value for name, _, value, _ in cell["points"] if name.startswith(("test/", "weight_counts/"))}
    interval = {"test/accuracy_low": 60.0, "test/accuracy_high": 68.5}
    found = {"test/accuracy": 64.25, "test/accuracy_sd": 1.5, "test/n": 3, "test/behind_best": 2.5, "test/p": 0.0123}
    assert values == {**interval, **found, "weight_counts/trained": 20, "weight_counts/trained_percent": 2.0}


def test_a_result_that_is_not_known_any_more_is_nan(sweep):
    add(sweep, ROW)
    later = numbered([*WHOLE, RESUMED])
    report, files = write_report(sweep[1], SEARCHING)
    publish(sweep[0], sweep[1] / "artifacts", sweep[1], later, report, files)
    run = next(run for run in runs_of(sweep[0]) if run.data.tags[keys.KIND] == "cell" and keys.VERDICT in run.data.tags)
    assert math.isnan(run.data.metrics["test/accuracy"])
    assert run.data.metrics["test/n"] == 0


def test_a_finished_sweep_that_is_run_again_leaves_no_second_points(sweep):
    add(sweep, ROW)
    expected = content(sweep[0])
    report, files = write_report(sweep[1], ROW)
    publish(sweep[0], sweep[1] / "artifacts", sweep[1], numbered([*WHOLE, WHOLE[0], WHOLE[-1]]), report, files)
    assert content(sweep[0]) == expected


@pytest.mark.parametrize("after", [False, True], ids=["request lost", "answer lost"])
def test_a_crash_at_any_call_changes_nothing_in_the_end(sweep, after, monkeypatch):
    add(sweep, ROW)
    expected, calls = content(sweep[0]), 1
    make = mlflow_store.connect
    while True:
        monkeypatch.setattr(mlflow_store, "connect", lambda uri, n=calls: Breaking(make(uri), n, after))
        try:
            add(sweep, ROW)
            break
        except ConnectionError:
            monkeypatch.setattr(mlflow_store, "connect", make)
            add(sweep, ROW)
            assert content(sweep[0]) == expected, f"after call {calls}"
        calls += 1
    assert calls > 4


def test_a_long_description_keeps_its_links_and_fits_mlflows_limit():
    text = description([{**ROW, "task": f"task{i}"} for i in range(400)], "Use *Adapter*.", "1", "made-up", "abc")
    assert len(text) < 8000
    assert "[Report](#/experiments/1/runs/abc/artifacts/report/summary.html)" in text
    assert text.endswith("| ... |")
