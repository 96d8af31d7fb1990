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

pytestmark = pytest.mark.slow
ADDRESS = "127.0.0.1:6397"


def epochs(out):
    """Score and loss of each epoch of each trial, by trial and number."""
    (ledger,) = out.glob("*/ledger.jsonl")
    reports = [record for record in read(ledger.parent) if record["event"] == "progress"]
    return {(r["id"], r["progress"]["epoch"]): (r["progress"]["score"], r["progress"]["loss"]) for r in reports}


@pytest.fixture
def environment():
    """The environment of processes that may join a cluster of two cores."""
    with tempfile.TemporaryDirectory(prefix="r", dir="/tmp") as folder:
        token, log = Path(folder) / "token", Path(folder) / "log"
        token.write_text("0" * 64)
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "NO_COLOR": "1", "RAY_USAGE_STATS_ENABLED": "0"}
        environment["RAY_worker_niceness"] = "0"  # tests run beside it
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
    long = [f"{name}=9000" for name in ("recipe.epochs", "recipe.patience", "budget.grace")]  # longer than this test

    def driver(name, address, **more):
        words = [*arguments(project, tmp_path / name, "--address", address), "--set", *long]
        return launch([sys.executable, "-m", "orchestrator.run", *words], tmp_path, {**environment, **more})

    first = driver("first", "auto", RAY_ADDRESS=ADDRESS, **job)
    wait_for(tmp_path / "first", "progress", 20, first)
    second = driver("second", ADDRESS)
    wait_for(tmp_path / "second", "progress", 20, second)
    wait_for(tmp_path / "first", "progress", len(epochs(tmp_path / "first")) + 20, first)
    told, names = [], []
    for process, name in ((first, "first"), (second, "second")):
        process.terminate()
        code, errors = finish(process)
        assert code == 75, errors
        told.append(errors)
        names += [json.loads(path.read_text())["sweep"] for path in (tmp_path / name).glob("*/sweep.json")]
    assert f"keeps 1 of its 2 devices, since others lack some of their share of the cluster: {names[1]} of " in told[0]
    assert f"has 0 of 2 devices and waits for others that use the cluster, too: {names[0]} of " in told[1]
    ours, theirs = epochs(tmp_path / "first"), epochs(tmp_path / "second")
    assert len(ours.keys() & theirs.keys()) >= 20
    assert all(ours[each] == theirs[each] for each in ours.keys() & theirs.keys())
    assert "will be trained again" not in told[0], "no process died for it"
