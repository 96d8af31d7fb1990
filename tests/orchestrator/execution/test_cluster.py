"""Ray that does not start, and a cluster that does not answer any more, without Ray: its module is replaced."""

import sys
import threading
import time
from types import ModuleType

import pytest

from orchestrator.execution import cluster
from orchestrator.exit_codes import EnvironmentUnfit

SLOW = Exception(
    "The current node timed out during startup. This could happen because some of the raylet processes failed to startup.\nmore"
)


@pytest.fixture
def ray(monkeypatch):
    """A module in the place of Ray, with the calls that were made of it."""
    module = ModuleType("ray")
    module.calls = []
    module.shutdown = lambda: module.calls.append("shutdown")
    module.nodes = lambda: [{"Alive": True, "Resources": {"CPU": 2.0}}]
    monkeypatch.setitem(sys.modules, "ray", module)
    return module


def failing(monkeypatch, *errors):
    """Let the next attempts to start Ray raise these errors; the ones after them succeed. Returns the attempts."""
    attempts, left = [], list(errors)

    def init(folder, gpus, address, attempt):
        attempts.append(attempt)
        if left:
            raise left.pop(0)

    monkeypatch.setattr(cluster, "_init", init)
    return attempts


def test_a_ray_that_starts_too_slowly_is_tried_once_more(ray, monkeypatch, tmp_path, caplog):
    attempts = failing(monkeypatch, SLOW)
    cluster._start(tmp_path, 0, None)
    assert attempts == [1, 2]
    assert ray.calls == ["shutdown"]
    assert "Ray did not start (The current node timed out during startup); trying once more" in caplog.text


@pytest.mark.parametrize("error", [SLOW, RuntimeError("no memory"), AssertionError(), ConnectionError("refused\nmore")])
def test_a_ray_that_does_not_start_is_an_unfit_environment_in_one_line(ray, monkeypatch, tmp_path, error):
    attempts = failing(monkeypatch, error, error)
    with pytest.raises(EnvironmentUnfit, match=r"Ray on this machine did not start in 2 attempts: .") as caught:
        cluster._start(tmp_path, 0, None)
    assert attempts == [1, 2]
    assert "\n" not in str(caught.value)


def test_a_cluster_that_cannot_be_joined_is_not_tried_again(ray, monkeypatch, tmp_path):
    attempts = failing(monkeypatch, ConnectionError("wrong token"))
    with pytest.raises(EnvironmentUnfit, match="cluster at h:1 cannot be joined: wrong token"):
        cluster._start(tmp_path, 0, "h:1")
    assert attempts == [1]


def watch(monkeypatch, nodes):
    """Watch a cluster whose nodes are told by `nodes`; return the exit code of the process, None if it goes on."""
    ended = threading.Event()
    codes = []

    def end(code):
        codes.append(code)
        ended.set()
        time.sleep(0.1)  # as the real one, it does not return before the process is over

    sys.modules["ray"].nodes = nodes
    monkeypatch.setattr(cluster, "WATCH_SECONDS", 0.02)
    monkeypatch.setattr(cluster.os, "_exit", end)
    monkeypatch.setattr(cluster.logging, "shutdown", lambda: None)
    with cluster.watched(lambda: 7):
        ended.wait(3 if nodes is not alive else 0.5)
    return codes[0] if codes else None


def alive():
    return [{"Alive": False}, {"Alive": True}]


def blocked():
    threading.Event().wait(5)  # Ray's own call waits for minutes
    return alive()


def lost():
    raise RuntimeError("Failed to connect to GCS")


@pytest.mark.parametrize(
    ("nodes", "code"), [(alive, None), (blocked, 7), (lost, 7), (lambda: [{"Alive": False}], 7), (list, 7)]
)
def test_a_cluster_that_does_not_answer_ends_the_process_with_the_given_code(ray, monkeypatch, nodes, code):
    assert watch(monkeypatch, nodes) == code


@pytest.mark.parametrize(
    ("gpus", "nodes", "expected"),
    [
        (4, [{"CPU": 32, "GPU": 4}], (4, 1.0, 1)),
        (5, [{"CPU": 1, "GPU": 1}, {"CPU": 2, "GPU": 4}], (5, 0.5, 1)),
        (5, [{"CPU": 1, "GPU": 1}, {"CPU": 2, "GPU": 4}, {"CPU": 64}], (5, 0.5, 1)),
        (2, [{"GPU": 2}], (2, 0.0, 1)),
        (0, [{"CPU": 2}, {"CPU": 3}], (5, 1, 0)),
    ],
)
def test_a_worker_gets_the_cores_that_every_node_with_gpus_has_for_each(gpus, nodes, expected):
    found = cluster.share(gpus, 3, nodes)
    assert (found.devices, found.cpu, found.gpu) == expected
    assert found.expected in (found.devices, None)
    assert found.slots == 3 * found.devices
    assert 0 not in found.resources.values()


def test_of_the_devices_those_are_expected_that_are_there():
    found = cluster.share(32, 3, [{"CPU": 4, "GPU": 2}, {"CPU": 9}, {"CPU": 4, "GPU": 4}])
    assert (found.devices, found.expected, found.cpu) == (32, 6, 1.0)
