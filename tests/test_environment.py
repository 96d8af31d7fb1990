"""What a sweep changes in the environment of its process it puts back: the next Ray, or a child, must not find it."""

import os
import sys
from types import ModuleType, SimpleNamespace

import pytest

from orchestrator.execution import cluster
from orchestrator.tracking import tracker as tracking
from reports.data import store
from search_spaces.environment import changed, unless_set
from search_spaces.events import LedgerRecord, SweepFinished
from tests.fixtures.report_store import new_store


@pytest.fixture
def unchanged():
    """Fails the test when it leaves another environment than it found. To be named before `monkeypatch`."""
    before = {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"}
    yield
    assert {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"} == before


@pytest.fixture
def seen(monkeypatch):
    """What a made-up Ray, imported before the sweep began, is told to read again: (what, path of the token)."""
    seen = []

    def reads(what):
        return lambda *_: seen.append((what, os.environ.get("RAY_AUTH_TOKEN_PATH")))

    raylet = ModuleType("ray._raylet")
    raylet.Config = SimpleNamespace(initialize=reads("mode"))
    raylet.AuthenticationTokenLoader = SimpleNamespace(instance=lambda: SimpleNamespace(reset_cache=reads("token")))
    monkeypatch.setitem(sys.modules, "ray", ModuleType("ray"))
    monkeypatch.setitem(sys.modules, "ray._raylet", raylet)
    return seen


@pytest.fixture
def tune_runner():
    # The import itself changes a variable, which is the cluster's to put back.
    from orchestrator.execution import tune_runner

    return tune_runner


def test_variables_are_what_they_were_after_an_error_too(unchanged, monkeypatch):
    def body():
        with changed({"ONE": "one", "TWO": None, "THREE": "three"}):
            assert [os.environ.get(name) for name in ("ONE", "TWO", "THREE")] == ["one", None, "three"]
            raise KeyError

    monkeypatch.setenv("ONE", "1")
    monkeypatch.setenv("TWO", "2")
    with pytest.raises(KeyError):
        body()
    assert [os.environ.get(name) for name in ("ONE", "TWO", "THREE")] == ["1", "2", None]
    assert unless_set({"ONE": "one", "THREE": "three"}) == {"THREE": "three"}


# Set by `ray job submit` for the cluster on which this process runs as a job.
OF_A_JOB = ("RAY_ADDRESS", "RAY_JOB_CONFIG_JSON_ENV_VAR")


@pytest.mark.parametrize("address", [None, "host:1"])
def test_nothing_of_a_cluster_stays(unchanged, seen, monkeypatch, tmp_path, address):
    def body():
        with cluster._environment(tmp_path, address):
            assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"
            for name in OF_A_JOB:
                assert os.environ.get(name) == (None if address is None else "elsewhere:1")
            assert os.environ.get("RAY_AUTH_MODE") == ("token" if address is None else None)
            os.environ.update(dict.fromkeys(cluster.SET_BY_RAY, "changed"))
            raise RuntimeError

    for name in OF_A_JOB:
        monkeypatch.setenv(name, "elsewhere:1")
    for name in cluster.SET_BY_RAY:
        monkeypatch.delenv(name, raising=False)
    before = dict(os.environ)
    with pytest.raises(RuntimeError):
        body()
    assert dict(os.environ) == before


def test_a_ray_that_was_imported_before_reads_the_token_of_its_cluster_and_forgets_it(unchanged, seen, tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        with cluster._environment(tmp_path / name, None):
            assert len((tmp_path / name / "token").read_text()) == 64
    one, two = (str(tmp_path / name / "token") for name in ("one", "two"))
    assert seen == [(what, path) for path in (one, None, two, None) for what in ("mode", "token")]


def test_a_run_of_tunes_leaves_nothing(tune_runner, unchanged, monkeypatch, tmp_path):
    found = []
    tuner = SimpleNamespace(fit=lambda: found.append(os.environ["TUNE_MAX_PENDING_TRIALS_PG"]))
    monkeypatch.setattr(tune_runner.tune, "Tuner", lambda *_, **__: tuner)
    searcher, scheduler = tune_runner.WorkerSearcher(None, 3, {}), tune_runner.WorkerScheduler(None)
    share = cluster.Share(devices=3, cpu=1, gpu=0, per_device=1)
    tune_runner._run_tune(
        searcher, scheduler, share, tmp_path, "run0", tune_runner.LoopCallback(None, None, None, None, 1)
    )
    assert found == ["3"]


def test_a_tracker_leaves_nothing(unchanged, monkeypatch, tmp_path):
    found = {}

    class Link:
        position = 0

        def __init__(self, *_):
            found.update(os.environ)

        def deliver(self, records):
            self.position += len(records)

    monkeypatch.setattr(tracking, "Link", Link)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "7")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "77")
    monkeypatch.delenv("MLFLOW_DISABLE_TELEMETRY", raising=False)
    tracker = tracking.Tracker("sqlite:///x.db", None, tmp_path, [LedgerRecord(seq=1, time=0.0, event=SweepFinished())])
    tracker.start()
    assert tracker.drain(10)
    tracker.close()
    assert found["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == "0"  # whatever the user has set
    assert found["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "77"
    assert found["MLFLOW_DISABLE_TELEMETRY"] == "true"
    assert os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == "7"


def test_a_reader_of_the_store_leaves_nothing(unchanged, tmp_path):
    with store._client(new_store(tmp_path)):
        assert os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] == "false"
