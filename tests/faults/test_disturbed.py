"""Faults of Ray, disks and environments beside an undisturbed twin."""

import contextlib
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from orchestrator.execution import tune_runner
from orchestrator.execution.cluster import Share
from orchestrator.exit_codes import ClusterLost
from tests.faults.fake_training import train_sweep
from tests.faults.random_kills import facts
from tests.fixtures.cli_process import ROOT
from tests.fixtures.fakes import drive, make_space, open_sweep, result


def test_a_slow_disk_changes_no_result(tmp_path, monkeypatch):
    space = make_space(tasks=("t",))
    train_sweep(space, tmp_path / "calm", tmp_path / "calm.trained", seed=1)
    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda file: (time.sleep(0.01), real(file))[1])
    train_sweep(space, tmp_path / "slow", tmp_path / "slow.trained", seed=1)
    assert facts(tmp_path / "slow", whole=False) == facts(tmp_path / "calm", whole=False)


def runner(sweep, monkeypatch, run_tune):
    """A runner of this sweep whose runs of Ray Tune are calls of a function."""
    controller = SimpleNamespace(environment_error="")
    monkeypatch.setattr(tune_runner.TuneRunner, "_controller", lambda *_: contextlib.nullcontext(controller))
    monkeypatch.setattr(tune_runner, "_run_tune", run_tune)
    paths = SimpleNamespace(environment={}, storage="", sweep="")
    parts = {"paths": paths, "checkpoints": None, "display": None, "drain": None}
    return tune_runner.TuneRunner(sweep=sweep, **parts)


SHARE = Share(devices=1, cpu=1, gpu=0, per_device=1)


def test_a_run_of_tunes_that_ends_early_is_started_again_for_what_is_left(tmp_path, monkeypatch):
    """As when Ray's memory monitor kills a worker, which ends the whole run in the pinned version."""
    sweep, runs = open_sweep(make_space(), tmp_path / "ended"), []

    def run_tune(*others):
        runs.append(0)
        given = sweep.next_trial()
        if len(runs) == 1:
            assert sweep.next_trial().id != given.id
        else:
            assert given.id == first[0], "the trials of the run that ended come again"
            sweep.drain("SIGTERM")
        first.append(given.id)

    first = []
    runner(sweep, monkeypatch, run_tune).run(SHARE, tmp_path)
    assert len(runs) == 2
    sweep._ledger.close()
    assert result(drive(make_space(), tmp_path / "ended")) == result(drive(make_space(), tmp_path / "calm"))


def test_a_ray_whose_runs_keep_ending_is_a_lost_cluster(tmp_path, monkeypatch):
    sweep, runs = open_sweep(make_space(), tmp_path), []
    with pytest.raises(ClusterLost, match="gave up 5 times"):
        runner(sweep, monkeypatch, lambda *_: runs.append(0)).run(SHARE, tmp_path)
    assert len(runs) == tune_runner.RUNS


class Broken:
    def __init__(self, *others):
        raise RuntimeError("Task was killed due to the node running low on memory.\nmore")


def test_an_error_of_tunes_own_is_one_line_in_the_log(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(tune_runner.tune, "Tuner", lambda *_, **__: SimpleNamespace(fit=Broken))
    tune_runner._run_tune(None, None, SHARE, tmp_path, "run", tune_runner.LoopCallback(None, None, None))
    assert caplog.messages == [
        "Ray Tune gave up (Task was killed due to the node running low on memory.); starting it again for what is left"
    ]


@pytest.mark.slow
def test_another_locale_time_zone_and_order_of_hashes_change_no_byte_of_the_report(tmp_path):
    from tests.fixtures.report_store import known_store

    def written(name, **variables):
        command = [sys.executable, "-m", "reports", "--tracking-uri", known_store(), "--out", str(tmp_path / name)]
        subprocess.run(command, check=True, cwd=ROOT, env={**os.environ, **variables}, stdout=subprocess.DEVNULL)
        files = (path for path in (tmp_path / name).rglob("*") if path.is_file())
        return {path.relative_to(tmp_path / name): Path(path).read_bytes() for path in files}

    calm = written("calm", PYTHONHASHSEED="1", TZ="UTC", LC_ALL="C.UTF-8")
    disturbed = written("disturbed", PYTHONHASHSEED="2", TZ="Asia/Kolkata", LC_ALL="C", LANG="C")
    assert [str(name) for name in calm if calm[name] != disturbed.get(name)] == []
    assert calm.keys() == disturbed.keys()
