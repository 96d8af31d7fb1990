"""A cluster that runs already: a driver that `ray job submit` starts there, and a second one that waits for it."""

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
from tests.orchestrator.execution.test_nodes import results

pytestmark = pytest.mark.slow
ADDRESS = "127.0.0.1:6397"


@pytest.fixture
def environment():
    """The environment of processes that may join a cluster of one core."""
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
            "--num-cpus=1",
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


def test_a_submitted_job_trains_on_its_cluster_and_a_second_driver_says_for_whom_it_waits(environment, tmp_path):
    project = write_project(tmp_path, epochs=3, train=120)
    # What Ray's job supervisor sets for the command of `ray job submit --runtime-env-json ... -- python -m orchestrator.run ...`.
    runtime_env = {"env_vars": {"HF_HUB_OFFLINE": "0", "OTHER": "1"}}
    job = {
        "RAY_JOB_CONFIG_JSON_ENV_VAR": json.dumps({"runtime_env": runtime_env, "metadata": {"job_submission_id": "j"}})
    }

    def driver(name, address, **more):
        words = [*arguments(project, tmp_path / name, "--address", address), "--set", "recipe.epochs=60"]
        return launch([sys.executable, "-m", "orchestrator.run", *words], tmp_path, {**environment, **more})

    first = driver("first", "auto", RAY_ADDRESS=ADDRESS, **job)
    wait_for(tmp_path / "first", "progress", 1, first)
    second = driver("second", ADDRESS)
    for process in (first, second):
        code, errors = finish(process)
        assert code == 0, errors
    (sweep,) = (tmp_path / "first").glob("*/sweep.json")
    name = json.loads(sweep.read_text())["sweep"]
    assert f"has 0 of 1 devices and waits for others that use the cluster, too: {name} of " in errors
    assert results(tmp_path / "first") == results(tmp_path / "second")
