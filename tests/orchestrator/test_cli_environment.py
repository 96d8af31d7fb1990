"""An unfit environment, and whatever ends a sweep: an exit code of its own, nothing written, nothing heavy loaded."""

import os
import re
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator import exit_codes
from orchestrator.ledger import Damaged, Held
from tests.fixtures.cli_calls import QUICK, wants
from trainables.backbone.hub import MissingModel
from trainables.tasks.task_data import MissingData

ROOT = Path(__file__).parents[2]


def test_more_gpus_than_the_machine_has_are_an_unfit_environment(run):
    wants(run(*QUICK, "--gpus", "8"), exit_codes.ENVIRONMENT, "--gpus 8", "has 0", "CUDA_VISIBLE_DEVICES", "--gpus 0")


@pytest.mark.parametrize("option", ["--out", "--report"])
def test_a_folder_that_cannot_be_written_is_an_unfit_environment(run, tmp_path, option):
    (tmp_path / "file").write_text("")
    wants(run(*QUICK, option, tmp_path / "file"), exit_codes.ENVIRONMENT, option, "is not a folder", "another place")
    wants(
        run(*QUICK, option, tmp_path / "file" / "x"),
        exit_codes.ENVIRONMENT,
        option,
        f"{tmp_path / 'file'} is not a folder",
    )
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    wants(run(*QUICK, option, tmp_path / "link"), exit_codes.ENVIRONMENT, option, "is not a folder")


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs a file system that refuses even root: /proc")
def test_a_file_system_that_refuses_to_write_is_found_whoever_asks(run):
    wants(run(*QUICK, "--out", "/proc/runs"), exit_codes.ENVIRONMENT, "--out /proc/runs: /proc cannot be written")
    uri = "sqlite:////proc/runs/mlflow.db"
    wants(run(*QUICK, "--tracking-uri", uri), exit_codes.ENVIRONMENT, "--tracking-uri", "/proc cannot be written")


def test_a_place_for_checkpoints_that_cannot_be_used_is_an_unfit_environment(run, tmp_path):
    (tmp_path / "file").write_text("")
    words = (*QUICK, "--checkpoints", f"file://{tmp_path}/file")
    wants(run(*words), exit_codes.ENVIRONMENT, f"--checkpoints file://{tmp_path}/file: cannot be used", "on every node")


def test_a_disk_without_room_is_an_unfit_environment(run, monkeypatch, tmp_path):
    usage = shutil.disk_usage(tmp_path)._replace(free=37 << 20)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    wants(run(*QUICK, "--out", tmp_path / "runs"), exit_codes.ENVIRONMENT, "--out", "37 MiB are free", "100 are needed")


def test_a_backbone_in_4_bits_without_the_package_is_an_unfit_environment(run, monkeypatch):
    monkeypatch.setattr("orchestrator.planning.preflight.find_spec", lambda name: None)
    words = (*QUICK, "--precision", "nf4", "--methods", "lora,adapter")
    for more in ((), ("--plan",), ("--probe",)):
        wants(run(*words, *more), exit_codes.ENVIRONMENT, "'nf4' needs bitsandbytes", "pip install 'peft-sweep[nf4]'")


def test_a_cluster_that_does_not_answer_is_an_unfit_environment(run):
    wants(
        run(*QUICK, "--address", "localhost:1"), exit_codes.ENVIRONMENT, "--address localhost:1: nothing answers there"
    )


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ValueError("wrong"), 2),
        (MissingModel("no model"), 4),
        (MissingData("no data"), 4),
        (exit_codes.EnvironmentUnfit("no GPU"), 4),
        (OSError(28, "No space left on device"), 4),
        (Damaged("line 7"), 5),
        (Held("by process 1"), 6),
        (exit_codes.ClusterLost("gone"), 7),
        (KeyboardInterrupt(), 130),
    ],
)
def test_what_ends_a_sweep_has_an_exit_code_of_its_own_and_no_traceback(run, driver, error, code):
    def drive(plan, options):
        raise error

    driver.drive = drive
    wants(run(*QUICK), code)


def test_an_interrupted_start_says_how_to_go_on(run, driver):
    def drive(plan, options):
        raise KeyboardInterrupt

    driver.drive = drive
    wants(run(*QUICK, "--trials", "3"), 130, "python -m orchestrator.run --space quickstart --gpus 0 --trials 3")


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGHUP], ids=lambda sent: sent.name)
def test_a_signal_before_trials_are_trained_ends_with_the_code_for_schedulers(run, driver, sent):
    before = {each: signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGHUP)}
    driver.drive = lambda plan, options: signal.raise_signal(sent)
    try:
        wants(run(*QUICK), 75, "terminated; start or continue it with: python -m orchestrator.run --space quickstart")
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def test_a_large_sweep_is_asked_about_on_a_terminal_and_no_is_no(run, monkeypatch):
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    asked = []
    monkeypatch.setattr("builtins.input", lambda question: asked.append(question) or "n")
    assert run("--space", "glue_madapter", "--tasks", "mrpc", "--trials", "40")[0] == exit_codes.COMPLETE
    # Two models; 8, 24, 24 and 40 configurations, three finals each.
    assert "216 trials" in asked[0]


HEAVY = {"torch", "ray", "mlflow", "optuna", "transformers", "datasets", "pandas", "numpy", "sklearn", "scipy"}


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["--list"], 0),
        (["--space", "quickstart", "--plan"], 0),
        (["--space", "glue_madapter", "--plan"], 0),
        (["--space", "glue_madaptor"], 2),
    ],
)
def test_plans_lists_and_errors_load_nothing_heavy_and_take_no_time(words, code, tmp_path):
    script = (
        "import sys; from orchestrator.run import main; code = main(sys.argv[1:]); "
        "print('MODULES', *{name.partition('.')[0] for name in sys.modules}); sys.exit(code)"
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-c", script, *words],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == code, done.stderr
    assert set(re.findall(r"\w+", done.stdout.partition("MODULES")[2])) & HEAVY == set()
    # Of the processor: the clock on the wall also counts other work on this machine.
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 2
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_is_not_in_the_cache_ends_a_real_call_without_network(tmp_path):
    place = tmp_path / "place"
    place.mkdir()
    done = subprocess.run(
        [sys.executable, "-m", "orchestrator.run", *QUICK, "--models", "owner/name"],
        cwd=place,
        env={**os.environ, "PYTHONPATH": str(ROOT), "HF_HOME": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    wants((done.returncode, done.stderr), exit_codes.ENVIRONMENT, "model 'owner/name'", "HF_HOME", "local directory")
    assert "Traceback" not in done.stderr
    assert list(place.iterdir()) == []
