"""The tracker's thread: it never holds the sweep up, whatever the store does, and delivers when it can."""

import contextlib
import http.server
import logging
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from orchestrator.exit_codes import EnvironmentUnfit
from orchestrator.ledger import Ledger
from orchestrator.tracking import tracker as tracker_module
from orchestrator.tracking.tracker import Link, StoreRefused, Tracker
from tests.fixtures.tracking_sweep import WHOLE, client, content, numbered, write_predictions

RECORDS = numbered(WHOLE)


@contextmanager
def tracking(uri, folder, records=()):
    tracker = Tracker(uri, folder / "artifacts", folder, list(records))
    tracker.start()
    try:
        yield tracker
    finally:
        tracker.close()


def put(tracker, records):
    """What a ledger does with new records."""
    tracker._records.extend(records)
    tracker.notify()


def wait_for(condition, seconds=20.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def warnings(caplog):
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A store with the sweep delivered record by record by a first tracker, its folder, and what it then held."""
    folder = tmp_path_factory.mktemp("sweep")
    write_predictions(folder)
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    with tracking(uri, folder) as tracker:
        for record in RECORDS:
            put(tracker, [record])
        assert tracker.drain(30)
        assert tracker.behind == 0
    return uri, folder, content(uri)


def test_what_was_put_is_in_the_store_after_drain(store):
    _, _, found = store
    assert found["sweep", "", ""]["tags"]["peft.position"] == str(len(RECORDS))
    assert len(found) == 6


def test_a_second_tracker_has_nothing_to_do(store):
    uri, folder, found = store
    with tracking(uri, folder, RECORDS) as tracker:
        assert tracker.behind == len(RECORDS), "unknown before the store was reached"
        assert tracker.drain(20)
    assert content(uri) == found


def test_records_that_a_ledger_gets_in_batches_are_delivered_from_its_file(store, schema, tmp_path):
    found, other = store[2], f"sqlite:///{shutil.copy(schema, tmp_path)}"
    write_predictions(tmp_path)
    times = iter([0.0, *(record.time for record in RECORDS)])  # the first is for the lock
    ledger = Ledger.open(tmp_path, clock=lambda: next(times))
    tracker = Tracker(other, tmp_path / "artifacts", tmp_path, ledger.records)
    ledger.append(RECORDS[0].event)
    tracker.start()
    for record in RECORDS[1:]:
        ledger.append(record.event)
        tracker.notify()
    ledger.close()
    assert tracker.drain(20)
    tracker.close()
    trials = {key: (run["points"], run["status"]) for key, run in found.items()}
    assert {key: (run["points"], run["status"]) for key, run in content(other).items()} == trials


def test_an_empty_tracker_drains_at_once(tmp_path):
    with tracking("sqlite:////nowhere/mlflow.db", tmp_path) as tracker:
        start = time.monotonic()
        assert tracker.drain(5)
        assert time.monotonic() - start < 0.5


def test_an_unreachable_store_costs_one_warning_and_no_time(tmp_path, caplog):
    with tracking("http://127.0.0.1:9", tmp_path) as tracker:
        start = time.monotonic()
        for record in RECORDS:
            put(tracker, [record])
        assert time.monotonic() - start < 0.2
        assert not tracker.drain(3)
        assert tracker.behind == len(RECORDS)
    assert len(warnings(caplog)) == 1, warnings(caplog)
    assert "tracking store http://127.0.0.1:9 unreachable" in warnings(caplog)[0]
    assert "records wait in the ledger" in warnings(caplog)[0]


@contextmanager
def fake_server(status, delay=0.0):
    class Handler(http.server.BaseHTTPRequestHandler):
        def answer(self):
            time.sleep(delay)
            self.send_response(status)
            self.end_headers()

        do_GET = do_POST = answer  # noqa: N815

        def log_message(self, *arguments):
            requests.append(self.path)

    requests = []
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", requests
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("status", [500, 429])
def test_a_server_that_fails_is_asked_again_about_once_a_second(tmp_path, caplog, status):
    with fake_server(status) as (uri, requests), tracking(uri, tmp_path, RECORDS) as tracker:
        assert not tracker.drain(2.5)
        assert tracker.behind == len(RECORDS)
    assert 2 <= len(requests) <= 4
    assert len([w for w in warnings(caplog) if "unreachable" in w]) == 1


def test_a_store_that_hangs_is_told_and_later_that_it_goes_on(schema, tmp_path, caplog, monkeypatch):
    """A database gives no time limit: the call returns when its server goes on."""
    goes_on, real = threading.Event(), Link.deliver
    monkeypatch.setattr(tracker_module, "HANGING", 0.2)
    monkeypatch.setattr(Link, "deliver", lambda *words: (goes_on.wait(20), real(*words)))
    write_predictions(tmp_path)
    with tracking(f"sqlite:///{shutil.copy(schema, tmp_path)}", tmp_path, RECORDS) as tracker:
        wait_for(lambda: warnings(caplog))
        assert (
            f"has not answered for 0 s, {len(RECORDS)} records wait in the ledger; the sweep goes on"
            in warnings(caplog)[0]
        )
        goes_on.set()
        assert tracker.drain(20)
        wait_for(lambda: "reachable again" in warnings(caplog)[-1])


def test_a_frozen_server_holds_nobody_up(tmp_path):
    with fake_server(200, delay=8.0) as (uri, requests):
        tracker = Tracker(uri, None, tmp_path, RECORDS[:1])
        tracker.start()
        wait_for(lambda: requests or tracker._thread.is_alive())
        start = time.monotonic()
        put(tracker, RECORDS[1:])
        assert time.monotonic() - start < 0.1
        assert not tracker.drain(0.3)
        assert time.monotonic() - start < 1.0
        tracker._closed = True


def test_a_failure_within_the_tracker_is_told_and_retried(store, schema, tmp_path, caplog, monkeypatch):
    found, other = store[2], f"sqlite:///{shutil.copy(schema, tmp_path)}"
    failures = [TypeError("planted"), KeyError("planted")]
    real = Tracker._deliver

    def deliver(self, link):
        if failures:
            raise failures.pop()
        real(self, link)

    monkeypatch.setattr(Tracker, "_deliver", deliver)
    write_predictions(tmp_path)
    with tracking(other, tmp_path, RECORDS) as tracker:
        assert tracker.drain(20)
        wait_for(lambda: len(warnings(caplog)) == 2)
    assert "planted" in warnings(caplog)[0]
    assert "reachable again" in warnings(caplog)[1]
    assert len(content(other)) == len(found)


@pytest.mark.slow
def test_a_locked_database_holds_nobody_up_and_takes_everything_later(tmp_path, caplog):
    write_predictions(tmp_path)
    path = tmp_path / "mlflow.db"
    client(f"sqlite:///{path}")
    lock = sqlite3.connect(path, isolation_level=None)
    lock.execute("BEGIN EXCLUSIVE")
    with tracking(f"sqlite:///{path}", tmp_path, RECORDS[:1]) as tracker:
        start = time.monotonic()
        for record in RECORDS[1:]:
            put(tracker, [record])
        assert time.monotonic() - start < 0.2
        wait_for(lambda: warnings(caplog), 60)
        lock.rollback()
        lock.close()
        assert tracker.drain(60)
    assert len(content(f"sqlite:///{path}")) == 6


def test_importing_the_tracker_does_not_load_mlflow():
    heavy = ("mlflow", "torch", "ray", "optuna")
    code = f"import sys, orchestrator.tracking.tracker; print([m for m in {heavy} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_draining_goes_on_as_long_as_the_store_gets_on(tmp_path):
    tracker = Tracker("sqlite:///nowhere.db", tmp_path, tmp_path, RECORDS[:6])

    def deliver():
        for position in range(1, 7):
            time.sleep(0.15)
            tracker._note(position)

    threading.Thread(target=deliver, daemon=True).start()
    assert tracker.drain(0.5)  # 0.9 seconds in all


def test_draining_ends_when_the_store_has_stopped(tmp_path):
    tracker = Tracker("sqlite:///nowhere.db", tmp_path, tmp_path, RECORDS[:6])
    threading.Timer(0.1, tracker._note, [3]).start()
    start = time.monotonic()
    assert not tracker.drain(0.4)
    assert 0.4 < time.monotonic() - start < 5


@pytest.mark.parametrize("status", [401, 403])
def test_a_server_that_refuses_access_at_the_start_is_asked_once_and_ends_the_sweep(schema, tmp_path, status):
    with fake_server(status) as (uri, requests), tracking(uri, tmp_path, RECORDS) as tracker:
        with pytest.raises(StoreRefused, match=rf"refuses access \({status}\); set MLFLOW_TRACKING_TOKEN") as caught:
            tracker.await_answer(60)
        assert not tracker.drain(20)
    assert len(requests) == 1
    assert issubclass(StoreRefused, EnvironmentUnfit)
    assert "\n" not in str(caught.value)


def test_a_server_that_refuses_later_is_asked_again(tmp_path, monkeypatch):
    from mlflow.exceptions import MlflowException
    from mlflow.protos.databricks_pb2 import UNAUTHENTICATED

    failures = [MlflowException("API request failed with error code 401", error_code=UNAUTHENTICATED)]

    class Later(Link):
        def __init__(self, uri, artifacts, folder, records):
            self.position = 0

        def deliver(self, records):
            if failures:
                raise failures.pop()
            self.position += len(records)

    monkeypatch.setattr("orchestrator.tracking.tracker.Link", Later)
    with tracking("http://127.0.0.1:9", tmp_path, RECORDS) as tracker:
        tracker.await_answer(60)
        assert tracker.drain(20)
        assert tracker.failure is None


@pytest.mark.parametrize("status", [500, 404])
def test_a_store_that_is_away_does_not_end_the_sweep(tmp_path, status):
    with fake_server(status) as (uri, _), tracking(uri, tmp_path, RECORDS) as tracker:
        tracker.await_answer(60)
        assert tracker.failure is None


def test_a_database_of_another_version_of_mlflow_ends_the_sweep_with_the_way_out(schema, tmp_path):
    path = Path(shutil.copy(schema, tmp_path))
    with contextlib.closing(sqlite3.connect(path)) as database, database:
        database.execute("UPDATE alembic_version SET version_num = 'fedcba987654'")
    told = r"another version of MLflow made it: .*fedcba987654.*mlflow db upgrade"
    with tracking(f"sqlite:///{path}", tmp_path, RECORDS) as tracker, pytest.raises(StoreRefused, match=told):
        tracker.await_answer(60)


@pytest.mark.parametrize("damage", ["text", "cut", "unfinished"])
def test_a_database_that_cannot_be_opened_ends_the_sweep_with_the_way_out(schema, tmp_path, damage):
    path = Path(shutil.copy(schema, tmp_path))
    if damage == "text":
        path.write_text("not a database " * 99)
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[:40_000])
    else:  # as an earlier version left it when it was killed
        with contextlib.closing(sqlite3.connect(path)) as database, database:
            database.execute("DROP TABLE inputs")
            database.execute("UPDATE alembic_version SET version_num = '451aebb31d03'")
    told = "move the file away, and the same command fills a new one"
    with tracking(f"sqlite:///{path}", tmp_path, RECORDS) as tracker, pytest.raises(StoreRefused, match=told) as caught:
        tracker.await_answer(60)
    assert "\n" not in str(caught.value)
