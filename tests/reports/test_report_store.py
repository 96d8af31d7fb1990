"""Finding and reading sweeps: what is missing is named, nothing is created, nothing secret is repeated."""

import json
import socket
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from reports.__main__ import main
from reports.data.store import find, read
from reports.data.store_address import StoreError
from reports.sections import trace
from reports.statistics.analysis import analyze
from search_spaces import keys
from search_spaces.records import predictions_checksum
from tests.fixtures.report_store import FakeTrial, final, known_store, manifest, new_store, write_sweep

CELL = "minilm/mrpc/adapter"


def small(**changes):
    return manifest(["minilm"], ["mrpc"], ["adapter"], **changes)


def run(capsys, *arguments):
    code = main(arguments)
    return code, capsys.readouterr().err


def test_a_missing_database_is_an_error_and_is_not_created(tmp_path, capsys):
    path = tmp_path / "none" / "mlflow.db"
    code, message = run(capsys, "--tracking-uri", f"sqlite:///{path}", "--out", str(tmp_path / "out"))
    assert code == 4
    assert str(path) in message
    assert message.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_the_default_store_is_that_of_the_working_folder(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, message = run(capsys)
    assert code == 4
    assert str(tmp_path / "runs" / "mlflow.db") in message


def test_a_database_of_something_else_is_left_alone(tmp_path):
    path = tmp_path / "other.db"
    sqlite3.connect(path).execute("CREATE TABLE notes (text)").connection.close()
    before = path.read_bytes()
    with pytest.raises(StoreError, match="not an MLflow store"):
        find(f"sqlite:///{path}")
    (tmp_path / "text.db").write_text("no database at all, but long enough to be looked at " * 20)
    with pytest.raises(StoreError, match="not a readable MLflow store"):
        find(f"sqlite:///{tmp_path / 'text.db'}")
    assert path.read_bytes() == before


@pytest.mark.parametrize("uri", ["mlflow.db", "file:///tmp/mlruns", "sqlite://mlflow.db", "ftp://host/x", "sqlite:///"])
def test_an_address_of_another_kind_is_bad_input(uri, capsys):
    code, message = run(capsys, "--tracking-uri", uri)
    assert code == 2
    assert "--tracking-uri" in message


def test_a_server_that_does_not_answer_is_reported_within_seconds_and_without_its_password(capsys):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    code, message = run(capsys, "--tracking-uri", f"http://ann:secret@127.0.0.1:{port}")
    assert code == 4
    assert "secret" not in message
    assert "127.0.0.1" in message


def test_unknown_names_bring_the_nearest_known_ones(capsys):
    code, message = run(capsys, "--tracking-uri", known_store(), "--space", "glue_tset")
    assert (code, "did you mean 'glue_test'" in message) == (2, True)
    code, message = run(capsys, "--tracking-uri", known_store(), "--sweep", "sweep-2")
    assert (code, "did you mean 'sweep-1'" in message) == (2, True)


def test_a_store_without_sweeps_says_so(tmp_path, capsys):
    code, message = run(capsys, "--tracking-uri", new_store(tmp_path))
    assert (code, "no sweep is recorded" in message) == (4, True)


def test_the_newest_sweep_is_taken_unless_one_is_named(tmp_path):
    uri = new_store(tmp_path)
    write_sweep(uri, small(sweep="old"), [])
    write_sweep(uri, small(sweep="new"), [])
    write_sweep(uri, {**small(sweep="elsewhere"), "space": "other_space"}, [])
    assert find(uri) == "elsewhere"
    assert find(uri, space="glue_test") == "new"
    assert find(uri, space="glue_test", sweep="old") == "old"
    with pytest.raises(ValueError, match="known: new, old"):
        find(uri, space="glue_test", sweep="elsewhere")


def test_trials_of_other_sweeps_of_the_space_are_not_mixed_in(tmp_path):
    uri = new_store(tmp_path)
    write_sweep(uri, small(sweep="one"), [FakeTrial(cell=CELL, name="a")])
    write_sweep(uri, small(sweep="two"), [FakeTrial(cell=CELL, name="b")])
    assert list(read(uri, "one").trials["trial"]) == ["a"]


def test_of_two_runs_of_one_trial_the_one_that_ended_counts(tmp_path):
    uri = new_store(tmp_path)
    orphan = FakeTrial(cell=CELL, name="a", state="RUNNING")
    write_sweep(uri, small(), [FakeTrial(cell=CELL, name="a"), orphan])
    trials = read(uri, "sweep-1").trials
    assert list(trials["state"]) == ["DONE"]


def test_an_epoch_that_was_sent_twice_counts_once(tmp_path):
    uri = new_store(tmp_path)
    write_sweep(uri, small(), [FakeTrial(cell=CELL, name="a")])
    client = MlflowClient(tracking_uri=uri)
    client.log_metric(read(uri, "sweep-1").trials["run_id"][0], keys.SECONDS, 36.0, step=2)
    assert read(uri, "sweep-1").trials["seconds"][0] == pytest.approx(72.0)


def test_a_damaged_manifest_names_the_field(tmp_path):
    uri = new_store(tmp_path)
    record = small()
    del record["tasks"]["mrpc"]["train"]
    write_sweep(uri, record, [])
    with pytest.raises(StoreError, match="the field 'train' is missing"):
        read(uri, "sweep-1")


def test_a_manifest_that_is_gone_is_an_error_of_the_store(tmp_path):
    uri = new_store(tmp_path)
    write_sweep(uri, small(), [])
    for file in (tmp_path / "artifacts").rglob("sweep.json"):
        file.unlink()
    with pytest.raises(StoreError):
        read(uri, "sweep-1")


GOOD = {"predictions": [1.0, 0.0, 1.0], "labels": [1.0, 1.0, 1.0]}


def _with_predictions(tmp_path, text):
    """A store whose second final has this file of predictions, None for no file; and the id of the final's run."""
    uri = new_store(tmp_path)
    write_sweep(uri, small(), [final(CELL, seed, 66.67, predictions=GOOD) for seed in (1, 2)])
    client = MlflowClient(tracking_uri=uri)
    (run,) = client.search_runs(["1"], f"tags.`{keys.TRIAL}` = '{CELL}-final-2'")
    path = tmp_path / "artifacts" / run.info.run_id / "artifacts" / keys.PREDICTIONS_FILE
    path.unlink() if text is None else path.write_text(text, encoding="utf-8")
    return uri, run.info.run_id


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[1]",
        "[" * 200_000,
        '{"predictions": [1], "labels": [1, 0]}',
        '{"predictions": [1, 0, NaN], "labels": [1, 1, 1]}',
        json.dumps({**GOOD, "predictions": [1.0, 1.0, 1.0], "checksum": predictions_checksum(*GOOD.values())}),
    ],
    ids=["empty", "cut", "other", "deep", "short", "nan", "changed"],
)
def test_damaged_predictions_are_an_error_and_no_other_interval(tmp_path, capsys, text):
    uri, _ = _with_predictions(tmp_path, text)
    code, message = run(capsys, "--tracking-uri", uri, "--out", str(tmp_path / "out"))
    assert code == 5
    assert f"predictions.json of the final {CELL}-final-2 of {CELL}" in message
    assert message.splitlines()[-1].startswith("reports: the file predictions.json")
    assert not (tmp_path / "out").exists()


def test_predictions_with_their_checksum_are_read_and_missing_ones_are_left_out(tmp_path):
    good = json.dumps({**GOOD, "checksum": predictions_checksum(*GOOD.values())})
    (tmp_path / "a").mkdir()
    uri, run_id = _with_predictions(tmp_path / "a", good)
    assert read(uri, "sweep-1").predictions[run_id].predicted.tolist() == GOOD["predictions"]
    (tmp_path / "b").mkdir()
    uri, run_id = _with_predictions(tmp_path / "b", None)
    found = read(uri, "sweep-1").predictions
    assert len(found) == 1
    assert run_id not in found


def test_a_winner_that_is_not_the_configuration_of_the_finals_is_an_error(tmp_path, capsys):
    uri = new_store(tmp_path)
    trials = [FakeTrial(cell=CELL, name=f"t{i}", params={"lr": 10.0**-i, "batch_size": 8}) for i in (3, 4)]
    write_sweep(uri, small(), [*trials, final(CELL, 1, 80.0, params=trials[0].params)], {CELL: "t4"})
    code, message = run(capsys, "--tracking-uri", uri, "--out", str(tmp_path / "out"))
    assert code == 5
    assert f"{CELL}: the winner on record, trial t4, has another configuration" in message


def test_more_runs_than_a_page_are_all_read(tmp_path, monkeypatch):
    monkeypatch.setattr("reports.data.store.PAGE", 2)
    uri = new_store(tmp_path)
    write_sweep(uri, small(), [FakeTrial(cell=CELL, name=f"t{i}") for i in range(5)])
    assert len(read(uri, "sweep-1").trials) == 5


def test_a_database_without_its_driver_is_an_error_of_one_line(capsys, monkeypatch):
    for name in ("psycopg", "psycopg2"):
        monkeypatch.setitem(sys.modules, name, None)
    code, message = run(capsys, "--tracking-uri", "postgresql://ann:p/ss@host/db?sslmode=disable")
    assert code == 4
    assert message.startswith("reports: postgresql://host/db: ")
    assert "psycopg" in message
    assert message.count("\n") == 1


def test_an_unknown_database_driver_is_an_error_of_one_line(capsys):
    code, message = run(capsys, "--tracking-uri", "postgresql+nodriver://host/db")
    assert code == 4
    assert message.count("\n") == 1


def test_the_query_of_an_address_does_not_reach_the_summary():
    sweep = read(f"{known_store()}?timeout=5", "sweep-1")
    assert "timeout" not in trace.text(analyze(sweep))


def test_credentials_of_command_and_reasons_do_not_reach_the_sweep(tmp_path):
    uri = new_store(tmp_path)
    failed = final(CELL, 1, None, tags={keys.REASON: "http://ann:pw@host refused"})
    write_sweep(uri, small(command="run --tracking-uri http://ann:pw@host"), [failed])
    sweep = read(uri, "sweep-1")
    assert sweep.command == "run --tracking-uri http://host"
    assert sweep.trials["reason"][0] == "http://host refused"


def test_reading_and_building_import_neither_torch_nor_ray(tmp_path):
    uri = new_store(tmp_path)
    write_sweep(uri, small(), [FakeTrial(cell=CELL, name="a"), final(CELL, 1, 80.0)], {CELL: "a"})
    arguments = ["--tracking-uri", uri, "--out", str(tmp_path / "out")]
    code = (
        "import sys; from reports.__main__ import main; "
        f"code = main({arguments!r}); "
        "print(code, [name for name in ('torch', 'ray', 'optuna', 'transformers') if name in sys.modules])"
    )
    folder = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=folder, check=True)
    assert done.stdout.splitlines()[-1] == "0 []"
    assert done.stderr == ""
