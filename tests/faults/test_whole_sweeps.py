"""Real sweeps on Ray: signals to all processes of a job, and a disk that fills up; each ends as its undisturbed twin."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from tests.fixtures.cli_process import ROOT, arguments, finish, ledger_lines, start, table, wait_for, write_project
from tests.orchestrator.test_processes import TIMES

pytestmark = pytest.mark.slow
SMALL = ("--methods", "adapter", "--trials", "2", "--seeds", "1")
# Seconds from a signal to the end; 6 to 7 on two cores with nothing else running (docs/reliability.md).
MOST = 60


@pytest.fixture(scope="module")
def space(tmp_path_factory):
    return write_project(tmp_path_factory.mktemp("project"), epochs=8)


@pytest.fixture(scope="module")
def calm(space):
    return results(space, space.parent / "calm")


def results(space, out):
    """Run a sweep to its end; return its trials and results."""
    code, errors = finish(start(*arguments(space, out, *SMALL), cwd=space.parent))
    assert code == 0, errors
    tables = (table(out, name, TIMES) for name in ("results", "trials"))
    return [sorted(map(json.dumps, rows)) for rows in tables]


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT], ids=lambda sent: sent.name)
def test_a_signal_to_all_processes_of_the_job_ends_it_in_order(space, calm, sent):
    out = space.parent / sent.name
    process = start(*arguments(space, out, *SMALL), cwd=space.parent)
    wait_for(out, "progress", 2, process)
    os.killpg(process.pid, sent)
    began = time.monotonic()
    code, errors = finish(process)
    assert code == (130 if sent is signal.SIGINT else 75), errors
    assert time.monotonic() - began < MOST
    assert "Traceback" not in errors
    assert f"{'Ctrl-C' if sent is signal.SIGINT else sent.name}: no trial is started any more" in errors
    assert "ontinue with: python -m orchestrator.run --space" in errors
    assert results(space, out) == calm


# In namespaces of its own, so that a disk can be small without the rights of an administrator.
SMALL_DISK = """
set -e
mount -t tmpfs -o size=160m none "$OUT"
"$@" & driver=$!
until grep -qs '"event":"progress"' "$OUT"/*/ledger.jsonl; do sleep 0.1; done
head -c 120M /dev/zero > "$OUT/filler" || true
code=0; wait $driver || code=$?
rm "$OUT/filler"
cp -r "$OUT/." "$KEPT"
exit $code
"""


def lacks_namespaces():
    done = subprocess.run(["unshare", "-rm", "true"], capture_output=True, check=False)
    return done.returncode != 0


@pytest.mark.skipif(sys.platform != "linux" or lacks_namespaces(), reason="needs namespaces of users and mounts")
def test_a_disk_that_fills_up_stops_the_sweep_and_costs_no_trial(space, calm):
    out, kept = space.parent / "disk", space.parent / "kept"
    out.mkdir()
    kept.mkdir()
    driver = [sys.executable, "-m", "orchestrator.run", *arguments(space, out, *SMALL)]
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", SMALL_DISK, "sh", *driver],
        cwd=space.parent,
        env={**os.environ, "PYTHONPATH": str(ROOT), "NO_COLOR": "1", "OUT": str(out), "KEPT": str(kept)},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 4, done.stderr
    assert "Traceback" not in done.stderr
    (line,) = [line for line in done.stderr.splitlines() if "stopped: " in line]
    assert "MiB free, and the sweep needs" in line
    assert "continue with: python -m orchestrator.run" in line
    assert ledger_lines(kept, "interrupted") == 1
    out.rmdir()
    kept.rename(out)
    assert results(space, out) == calm
