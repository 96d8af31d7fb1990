"""The tracker against a real MLflow server that is down, killed, frozen or emptied. Minutes in all, hence slow."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request

import pytest

from tests.fixtures.tracking_sweep import content, write_predictions
from tests.orchestrator.tracking.test_tracker import RECORDS, put, tracking, wait_for, warnings

pytestmark = pytest.mark.slow


class Server:
    """A light `mlflow server` on a loopback port of its own; it is ended by its process group, nothing else is."""

    def __init__(self, folder):
        self.folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self.port}"
        self.process = None

    def start(self, database="mlflow.db"):
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port)]
        command += ["--workers", "1", "--backend-store-uri", f"sqlite:///{self.folder / database}"]
        command += ["--artifacts-destination", str(self.folder / "artifacts")]
        self.process = subprocess.Popen(
            command,
            env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        wait_for(self.answers, 60)

    def answers(self):
        try:
            return urllib.request.urlopen(f"{self.uri}/health", timeout=2).status == 200
        except OSError:
            return False

    def send(self, number):
        os.killpg(self.process.pid, number)

    def kill(self):
        if self.process:
            self.send(signal.SIGKILL)
            self.process.wait()
            self.process = None


@pytest.fixture
def server(tmp_path):
    write_predictions(tmp_path)
    server = Server(tmp_path)
    yield server
    server.kill()


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    """What a sqlite store holds after the same records, artifacts apart from their place."""
    folder = tmp_path_factory.mktemp("direct")
    write_predictions(folder)
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    with tracking(uri, folder, RECORDS) as tracker:
        assert tracker.drain(30)
    return content(uri)


def same(found, expected):
    """Equal but for when a run was opened, which batching decides."""
    without = [{key: {**run, "span": None} for key, run in side.items()} for side in (found, expected)]
    return without[0] == without[1]


def test_a_server_that_comes_up_late_gets_everything(server, tmp_path, expected, caplog):
    with tracking(server.uri, tmp_path, RECORDS[:4]) as tracker:
        wait_for(lambda: warnings(caplog))
        put(tracker, RECORDS[4:])
        server.start()
        assert tracker.drain(30)
        wait_for(lambda: len(warnings(caplog)) == 2)
    assert same(content(server.uri), expected)
    assert ["unreachable" in w for w in warnings(caplog)] == [True, False]


def test_a_server_killed_and_started_again_misses_nothing(server, tmp_path, expected, caplog):
    server.start()
    with tracking(server.uri, tmp_path, RECORDS[:5]) as tracker:
        wait_for(lambda: tracker.behind == 0)
        server.kill()
        start = time.monotonic()
        for record in RECORDS[5:12]:
            put(tracker, [record])
        assert time.monotonic() - start < 0.1
        wait_for(lambda: warnings(caplog))
        server.start()
        put(tracker, RECORDS[12:])
        assert tracker.drain(40)
    assert same(content(server.uri), expected)


def test_a_server_started_again_with_an_empty_database_is_filled_from_the_ledger(server, tmp_path, expected):
    server.start()
    with tracking(server.uri, tmp_path, RECORDS[:9]) as tracker:
        wait_for(lambda: tracker.behind == 0)
        server.kill()
        server.start("empty.db")
        put(tracker, RECORDS[9:])
        assert tracker.drain(40)
    assert same(content(server.uri), expected)


def test_a_frozen_server_gets_everything_once_it_goes_on(server, tmp_path, expected, caplog):
    server.start()
    with tracking(server.uri, tmp_path, RECORDS[:3]) as tracker:
        wait_for(lambda: tracker.behind == 0)
        server.send(signal.SIGSTOP)
        start = time.monotonic()
        put(tracker, RECORDS[3:12])
        assert time.monotonic() - start < 0.1
        wait_for(lambda: warnings(caplog), 30)
        server.send(signal.SIGCONT)
        put(tracker, RECORDS[12:])
        assert tracker.drain(60)
    assert same(content(server.uri), expected)
