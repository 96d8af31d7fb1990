"""A real sweep in which trials fail with secrets and terminal escapes in the message: nothing that is left of it holds them."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import psutil
import pytest

from tests.fixtures.cli_process import ROOT, arguments, ledger_lines, write_project

pytestmark = pytest.mark.slow

# Every one has CANARY in it, so that parts of a secret are found as well.
CANARIES = {
    "HF_TOKEN": "hf_CANARYaaaaCANARYaaaa",
    "MLFLOW_TRACKING_TOKEN": "CANARYbbbbCANARY",
    "AWS_SECRET_ACCESS_KEY": "CANARYcccc/+CANARY",
    "AWS_ACCESS_KEY_ID": "AKIACANARYCANARY",
    "MLFLOW_TRACKING_PASSWORD": "CANARY dd CANARY",
    "DATABASE_URL": "postgresql://ann:CANARYeeee@host/db",
}
UNKNOWN = "ghp_CANARYffffCANARY password=CANARYg at https://u:CANARYh@host/x?sig=CANARYi"
# Runs in every Python process of the sweep, also on its workers.
SITE = """
import importlib.abc, importlib.machinery, os, sys

class Loader(importlib.abc.Loader):
    def __init__(self, loader):
        self.loader = loader

    def create_module(self, spec):
        return self.loader.create_module(spec)

    def exec_module(self, module):
        self.loader.exec_module(module)
        add_trial = module.DeviceWorker.add_trial

        def failing(self, job):
            if job.trial.method == "adapter":
                told = " ".join(f"{{name}}={{os.environ[name]}} or {{os.environ[name]!r}}" for name in {names!r})
                raise RuntimeError("cannot log in: \\x1b[31m" + told + {unknown!r})
            add_trial(self, job)

        module.DeviceWorker.add_trial = failing

class Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "trainables.worker.device_worker":
            spec = importlib.machinery.PathFinder.find_spec(name, path)
            spec.loader = Loader(spec.loader)
            return spec

sys.meta_path.insert(0, Finder())
"""


def watch_command_lines(process, seen):
    """Collect the command lines of a process and its descendants until it ends."""
    while process.poll() is None:
        try:
            for each in psutil.Process(process.pid).children(recursive=True):
                try:
                    seen.add(" ".join(each.cmdline()))
                except psutil.Error:
                    continue
        except psutil.NoSuchProcess:
            return
        threading.Event().wait(0.2)


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """The folder of the sweep, its log and the command lines of its processes."""
    folder = tmp_path_factory.mktemp("secrets")
    space = write_project(folder, epochs=2)
    (folder / "site").mkdir()
    (folder / "site" / "sitecustomize.py").write_text(SITE.format(names=list(CANARIES), unknown=UNKNOWN))
    environment = {
        **os.environ,
        **CANARIES,
        "PYTHONPATH": os.pathsep.join([str(folder / "site"), str(ROOT)]),
        "HF_HUB_OFFLINE": "1",
        "NO_COLOR": "1",
    }
    words = arguments(space, folder / "out", "--trials", "2", "--seeds", "1")
    process = subprocess.Popen(
        [sys.executable, "-m", "orchestrator.run", *words],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    seen = set()
    watcher = threading.Thread(target=watch_command_lines, args=(process, seen))
    watcher.start()
    try:
        text, _ = process.communicate(timeout=540)
    finally:
        process.kill()
        watcher.join()
    return folder / "out", text, seen, process.returncode


def test_the_sweep_met_the_failures_and_wrote_its_report(sweep):
    out, text, seen, code = sweep
    assert code == 3, text
    assert ledger_lines(out, "ended") >= 3
    assert "cannot log in: HF_TOKEN=***" in text
    assert "cannot log in: HF_TOKEN=" in (out / "report" / "tables" / "trials.csv").read_text()
    assert any("-m reports" in line for line in seen)
    assert any("raylet" in line for line in seen)


def test_no_file_no_log_and_no_command_line_holds_a_secret(sweep):
    out, text, seen, _ = sweep
    files = [path for path in out.rglob("*") if path.is_file()]
    assert {"ledger.jsonl", "mlflow.db", "summary.md", "summary.html", "trials.csv"} <= {path.name for path in files}
    assert [str(path) for path in files if b"CANARY" in path.read_bytes()] == []
    assert "CANARY" not in text
    assert [line for line in seen if "CANARY" in line] == []


def test_no_text_holds_an_escape(sweep):
    out, text, _, _ = sweep
    texts = [path for path in out.rglob("*") if path.suffix in (".jsonl", ".json", ".md", ".html", ".csv", ".tex")]
    assert [path.name for path in texts if b"\x1b" in path.read_bytes() or b"\\u001b" in path.read_bytes()] == []
    assert "\x1b" not in text
    assert "[31m" not in text


def test_files_of_a_sweep_are_private_and_those_of_its_report_are_not(sweep):
    out = sweep[0]
    umask = os.umask(0)
    os.umask(umask)

    def mode(path: Path) -> int:
        return path.stat().st_mode & 0o777

    for path in [out, *out.rglob("*")]:
        reported = out / "report" in [path, *path.parents]
        assert mode(path) & 0o077 == (0o077 & ~umask & mode(path) if reported else 0), path
    assert mode(out / "report" / "summary.md") == 0o666 & ~umask
