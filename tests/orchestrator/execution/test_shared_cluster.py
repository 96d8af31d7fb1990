"""A cluster that runs already: a driver that `ray job submit` starts there, and a second one that gets half of its devices."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from tests.fixtures.cli_process import ROOT, arguments, finish, launch, wait_for, write_project
from tests.fixtures.ledger_lines import read
from tests.orchestrator.execution.test_nodes import results

pytestmark = pytest.mark.slow
ADDRESS = "127.0.0.1:6397"
NAMES = ("first", "second")


def times(out, event):
    (ledger,) = out.glob("*/ledger.jsonl")
    return [record["time"] for record in read(ledger.parent) if record["event"] == event]


@pytest.fixture
def environment():
    """The environment of processes that may join a cluster of two cores."""
    with tempfile.TemporaryDirectory(prefix="r", dir="/tmp") as folder:
        token, log = Path(folder) / "token", Path(folder) / "log"
        token.write_text("0" * 64)
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "NO_COLOR": "1", "RAY_USAGE_STATS_ENABLED": "0"}
        environment |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}
        words = [
            "start",
            "--head",
            "--block",
            "--port=6397",
            "--node-ip-address=127.0.0.1",
            "--num-cpus=2",
            "--num-gpus=0",
        ]
        words += ["--include-dashboard=false", "--object-store-memory=100000000", f"--temp-dir={folder}/r"]
        with log.open("wb") as file:
            command = [f"{Path(sys.executable).parent}/ray", *words]
            head = subprocess.Popen(command, env=environment, stdout=file, stderr=file, start_new_session=True)
        try:
            deadline = time.monotonic() + 90
            while b"Ray runtime started" not in log.read_bytes():
                assert head.poll() is None, log.read_text()
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.2)
            yield environment
        finally:
            head.terminate()  # ends what it started
            try:
                head.wait(30)
            except subprocess.TimeoutExpired:
                os.killpg(head.pid, signal.SIGKILL)


def test_a_submitted_job_trains_on_its_cluster_and_gives_a_device_to_a_second_driver(environment, tmp_path):
    project = write_project(tmp_path, epochs=3, train=120)
    # What Ray's job supervisor sets for the command of `ray job submit --runtime-env-json ... -- python -m orchestrator.run ...`.
    runtime_env = {"env_vars": {"HF_HUB_OFFLINE": "0", "OTHER": "1"}}
    job = {
        "RAY_JOB_CONFIG_JSON_ENV_VAR": json.dumps({"runtime_env": runtime_env, "metadata": {"job_submission_id": "j"}})
    }

    def driver(name, address, **more):
        words = [
            *arguments(project, tmp_path / name, "--address", address),
            "--set",
            "recipe.epochs=150",
            "recipe.patience=150",
        ]
        return launch([sys.executable, "-m", "orchestrator.run", *words], tmp_path, {**environment, **more})

    first = driver("first", "auto", RAY_ADDRESS=ADDRESS, **job)
    wait_for(tmp_path / "first", "progress", 1, first)
    second = driver("second", ADDRESS)
    told = []
    for process in (first, second):
        code, errors = finish(process)
        assert code == 0, errors
        told.append(errors)
    names = [json.loads(*(p.read_text() for p in (tmp_path / n).glob("*/sweep.json")))["sweep"] for n in NAMES]
    assert f"keeps 1 of its 2 devices, since others lack some of their share of the cluster: {names[1]} of " in told[0]
    assert f"has 0 of 2 devices and waits for others that use the cluster, too: {names[0]} of " in told[1]
    (first_ended,), (second_trained, *_) = times(tmp_path / "first", "finished"), times(tmp_path / "second", "progress")
    assert second_trained < first_ended, "they trained side by side"
    assert results(tmp_path / "first") == results(tmp_path / "second")
    assert "will be trained again" not in told[0], "no process died for it"
