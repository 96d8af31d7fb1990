"""The reaper ends what belongs to a sweep's folder, and nothing else."""

import os
import subprocess
import sys
from pathlib import Path

from orchestrator.execution.reaper import clean, processes_of

SLEEP = [sys.executable, "-c", "import sys, time; sys.stdout.flush(); time.sleep(60)"]


def test_only_processes_of_the_folder_are_ended_and_it_is_removed(tmp_path, monkeypatch):
    monkeypatch.setattr("orchestrator.execution.reaper.GRACE", 0.0)
    folder, other = tmp_path / "sweep", tmp_path / "sweep2"
    folder.mkdir()
    other.mkdir()
    with (folder / "log").open("w") as log, (other / "log").open("w") as foreign:
        by_environment = subprocess.Popen(SLEEP, env={**os.environ, "TOKEN_PATH": str(folder / "token")})
        by_file = subprocess.Popen(SLEEP, stdout=log)
        stranger = subprocess.Popen(SLEEP, stdout=foreign)
        driver = subprocess.Popen(SLEEP, stdout=log)
    try:
        assert set(processes_of(folder, driver.pid)) == {by_environment.pid, by_file.pid}
        clean(folder, driver.pid)
        assert by_environment.wait(10) < 0
        assert by_file.wait(10) < 0
        assert stranger.poll() is None
        assert driver.poll() is None
        assert not folder.exists()
    finally:
        for process in (by_environment, by_file, stranger, driver):
            process.kill()
            process.wait()


def test_it_acts_when_the_pipe_closes(tmp_path):
    folder = tmp_path / "sweep"
    folder.mkdir()
    root = Path(__file__).resolve().parents[3]
    reaper = subprocess.Popen(
        [sys.executable, "-m", "orchestrator.execution.reaper", str(folder)], stdin=subprocess.PIPE, cwd=root
    )
    assert reaper.stdin is not None
    assert reaper.poll() is None
    assert folder.exists()
    reaper.stdin.close()
    assert reaper.wait(20) == 0
    assert not folder.exists()
