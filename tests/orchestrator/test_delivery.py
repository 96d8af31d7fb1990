"""The end of a sweep: where the store is away, the report is made from the ledger by way of a store in the sweep's folder."""

import shutil
import signal
import threading
import time
from types import SimpleNamespace

import pytest

from orchestrator import delivery
from orchestrator.delivery import Delivery
from orchestrator.execution.drain import Drain
from orchestrator.private_files import private_files
from orchestrator.tracking.tracker import Tracker
from tests.fixtures.tracking_sweep import WHOLE, content, numbered, write_predictions

RECORDS = numbered(WHOLE)


@pytest.fixture
def made(monkeypatch):
    """The addresses from which reports were made; they have no files."""
    made = []

    def make_report(self, uri, file_list):
        made.append(uri)
        file_list.write_text("")
        return 0

    monkeypatch.setattr(Delivery, "_make_report", make_report)
    monkeypatch.setattr(delivery, "publish", lambda *arguments: "")
    return made


def end_of(folder, uri, drain=None):
    write_predictions(folder)
    tracker = Tracker(uri, folder / "artifacts", folder, RECORDS)
    tracker.start()
    ledger = SimpleNamespace(folder=folder, records=RECORDS)
    drain = drain or Drain("")
    return Delivery(
        tracker=tracker,
        uri=uri,
        sweep="made-up-1234abcd",
        ledger=ledger,
        report=folder / "report",
        drain=drain,
        umask=0o022,
    )


def test_the_report_is_made_from_the_store(schema, tmp_path, made):
    uri = f"sqlite:///{shutil.copy(schema, tmp_path / 'shared.db')}"
    assert end_of(tmp_path, uri).finish() == 0
    assert made == [uri]


def test_a_report_that_mlflow_does_not_take_is_one_line_and_the_exit_code_of_the_store(
    schema, tmp_path, made, monkeypatch, caplog
):
    def refuse(*arguments):
        raise ConnectionError("http://me:hunter2@h is\naway")

    monkeypatch.setattr(delivery, "publish", refuse)
    uri = f"sqlite:///{shutil.copy(schema, tmp_path / 'shared.db')}"
    assert end_of(tmp_path, uri).finish() == 4
    told = [record.getMessage() for record in caplog.records if "not in the tracking store" in record.getMessage()]
    assert told == [
        "the report is not in the tracking store (ConnectionError: http://h is away); the same command adds it"
    ]


def test_where_the_store_is_away_the_report_is_made_from_the_ledger(schema, tmp_path, made, monkeypatch, caplog):
    monkeypatch.setattr(delivery, "PATIENCE", 0.5)
    shutil.copy(schema, tmp_path / "mlflow.db")  # makes the test faster
    shutil.copy(schema, tmp_path / "other.db")
    assert end_of(tmp_path, "http://127.0.0.1:9").finish() == 4
    assert made == [f"sqlite:///{tmp_path}/mlflow.db"]
    assert "did not receive all records" in caplog.text
    monkeypatch.setattr(delivery, "PATIENCE", 60.0)
    other = f"sqlite:///{tmp_path / 'other.db'}"
    assert end_of(tmp_path, other).finish() == 0
    without_span = [{key: {**run, "span": None} for key, run in content(uri).items()} for uri in (made[0], other)]
    assert without_span[0] == without_span[1]


def test_a_local_store_that_cannot_be_written_leaves_one_line_and_no_report(tmp_path, made, monkeypatch, caplog):
    monkeypatch.setattr(delivery, "PATIENCE", 0.5)
    monkeypatch.setattr("mlflow.store.db.utils.MAX_RETRY_COUNT", 1)  # by itself MLflow tries for minutes
    (tmp_path / "mlflow.db").mkdir()
    assert end_of(tmp_path, "http://127.0.0.1:9").finish() == 4
    assert made == []
    assert "no report: " in caplog.text
    assert all("\n" not in record.getMessage() for record in caplog.records)


def test_after_a_signal_the_end_does_not_wait_long_for_the_store(tmp_path, made, monkeypatch):
    monkeypatch.setattr(Delivery, "_local_store", lambda self: "")
    monkeypatch.setattr(delivery, "PATIENCE_AFTER_SIGNAL", 0.5)
    drain = Drain("")
    end = end_of(tmp_path, "http://127.0.0.1:9", drain)
    end.tracker.await_answer(60)
    with drain.listening():
        threading.Timer(1.0, signal.raise_signal, [signal.SIGTERM]).start()
        start = time.monotonic()
        assert end.finish() == 4
    assert time.monotonic() - start < 30


def test_the_report_is_made_by_a_process_with_the_users_umask(tmp_path, monkeypatch):
    calls = []

    class Process:
        def __init__(self, words, **more):
            calls.append((words, more))

        def wait(self):
            return [0, 2, 5][len(calls) - 1]

    monkeypatch.setattr(delivery.subprocess, "Popen", Process)
    with private_files() as umask:
        (tmp_path / "private").write_text("")
    end = end_of(tmp_path, "http://127.0.0.1:9")
    end.tracker.close()
    assert [end._make_report("sqlite:///x.db", tmp_path / "files") for _ in range(3)] == [0, 4, 5]
    words, more = calls[0]
    assert words[1:5] == ["-m", "reports", "--tracking-uri", "sqlite:///x.db"]
    assert more["umask"] == 0o022
    assert (tmp_path / "private").stat().st_mode & 0o777 == 0o600
    (tmp_path / "public").write_text("")
    assert (tmp_path / "public").stat().st_mode & 0o777 == 0o666 & ~umask
