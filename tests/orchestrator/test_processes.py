"""Real processes: a whole sweep from the command line, killed, interrupted, doubled and continued; workers that hang."""

import contextlib
import json
import os
import re
import signal
import sqlite3
import sys
import time

import psutil
import pytest

from tests.fixtures.cli_process import (
    ROOT,
    arguments,
    finish,
    launch,
    ledger_lines,
    start,
    table,
    wait_for,
    write_project,
)
from tests.fixtures.ledger_lines import read

pytestmark = pytest.mark.slow

# What may differ between a disturbed and an undisturbed run: clocks, memory, and names given by MLflow.
TIMES = ("run_id", "seconds", "memory_mib", "search_hours", "final_hours")

# The command line with short limits; a worker that finds the file given first removes it and trains no further.
SHORT_LIMITS = """
import sys, time
from pathlib import Path
from orchestrator.execution import tune_runner, watchdog
from orchestrator.run import main
from trainables.worker.tune_trainable import DeviceTrainable

watchdog.PING_SECONDS, watchdog.SILENT_SECONDS, watchdog.STILL_SECONDS = 0.5, 6.0, 6.0
flag = Path(sys.argv.pop(1))

class HangingTrainable(DeviceTrainable):
    @staticmethod
    def open_worker(gpus):
        worker = DeviceTrainable.open_worker(gpus)
        step = worker.step
        def hang():
            step()
            if flag.exists():
                flag.unlink(missing_ok=True)
                time.sleep(1e6)
        worker.step = hang
        return worker

tune_runner.DeviceTrainable = HangingTrainable
sys.exit(main())
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    folder = tmp_path_factory.mktemp("project")
    return folder, write_project(folder)


@pytest.fixture(scope="module")
def calm(project):
    """An undisturbed run."""
    folder, space = project
    code, errors = finish(start(*arguments(space, folder / "calm"), cwd=folder))
    assert code == 0, errors
    return folder / "calm"


def sweep_folder(out):
    return next(out.glob("*/ledger.jsonl")).parent


def asked(out):
    return [r["id"] for r in read(sweep_folder(out)) if r["event"] == "asked"]


def epochs(out):
    return [(r["id"], r["progress"]["epoch"]) for r in read(sweep_folder(out)) if r["event"] == "progress"]


def same_report(out, reference):
    for name in ("results", "winners", "budget", "trials"):
        ours, theirs = table(out, name, TIMES), table(reference, name, TIMES)
        assert sorted(map(json.dumps, ours)) == sorted(map(json.dumps, theirs)), name


def descendants(process):
    return psutil.Process(process.pid).children(recursive=True)


def workers_of(process):
    """The device workers' processes."""
    found = []
    for each in descendants(process):
        with contextlib.suppress(psutil.NoSuchProcess):
            found += [each] if "Trainable" in " ".join(each.cmdline()) else []
    return found


def survivors(processes, timeout=30):
    """Names of those that still live after `timeout` seconds; an unreaped zombie is dead."""
    _, alive = psutil.wait_procs(processes, timeout=timeout)
    names = []
    for process in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            if process.status() != psutil.STATUS_ZOMBIE:
                names.append(" ".join(process.cmdline())[:80])
    return names


def test_one_command_ends_in_a_report(calm):
    summary = (calm / "report" / "summary.md").read_text(encoding="utf-8")
    assert "Results on the test split" in summary
    results = [row for row in table(calm, "results", ()) if row["metric"] == "accuracy"]
    assert {row["method"] for row in results} == {"full", "adapter"}
    assert all(float(row["mean"]) > 65 for row in results), results
    assert (calm / "report" / "figures").glob("*.png")


def test_every_trial_has_one_finished_run_and_no_id_is_trained_twice(calm):
    assert len(asked(calm)) == len(set(asked(calm)))
    assert len(epochs(calm)) == len(set(epochs(calm)))
    with sqlite3.connect(calm / "mlflow.db") as store:
        ids = store.execute("select value from tags where key = 'peft.trial'").fetchall()
        running = store.execute("select count(*) from runs where status = 'RUNNING'").fetchone()[0]
    assert sorted(i for (i,) in ids) == sorted(asked(calm))
    assert running == 0


def test_disk_holds_the_best_checkpoint_of_each_cell_and_no_more(calm):
    folders = list((sweep_folder(calm) / "checkpoints").iterdir())
    assert len(folders) == 2
    assert all({p.name for p in f.iterdir()} == {"state.json", "state.safetensors"} for f in folders)


def test_killed_three_times_it_ends_with_the_same_report(project, calm):
    folder, space = project
    out = folder / "killed"
    for event, number in (("progress", 1), ("ended", 3), ("winner", 1)):
        process = start(*arguments(space, out), cwd=folder)
        before = ledger_lines(out, event)
        wait_for(out, event, max(number, before + 1), process)
        children = descendants(process)
        process.kill()
        process.communicate()
        assert survivors(children) == []
    code, errors = finish(start(*arguments(space, out), cwd=folder))
    assert code == 0, errors
    assert sorted(asked(out)) == sorted(asked(calm))
    assert len(epochs(out)) == len(set(epochs(out)))
    same_report(out, calm)


def interrupted(folder, space, out, sent):
    process = start(*arguments(space, out), cwd=folder)
    wait_for(out, "ended", ledger_lines(out, "ended") + 2, process)
    os.kill(process.pid, sent)
    code, errors = finish(process)
    assert "Traceback" not in errors
    assert "ontinue with: python -m orchestrator.run --space" in errors
    assert "so far" in (out / "report" / "summary.md").read_text(encoding="utf-8").lower()
    return code


def test_ctrl_c_and_sigterm_drain_report_so_far_and_the_same_command_continues(project, calm):
    folder, space = project
    out = folder / "drained"
    assert interrupted(folder, space, out, signal.SIGINT) == 130
    assert interrupted(folder, space, out, signal.SIGTERM) == 75
    code, errors = finish(start(*arguments(space, out), cwd=folder))
    assert code == 0, errors
    same_report(out, calm)


def test_a_finished_sweep_run_again_trains_nothing(project, calm):
    folder, space = project
    before = len(epochs(calm))
    code, errors = finish(start(*arguments(space, calm), cwd=folder))
    assert code == 0, errors
    assert len(epochs(calm)) == before


def test_a_second_driver_is_refused_and_a_killed_worker_costs_one_epoch_and_no_trial(project, calm):
    folder, space = project
    out = folder / "worker"
    process = start(*arguments(space, out), cwd=folder)
    wait_for(out, "sweep", 1, process)
    code, errors = finish(start(*arguments(space, out), cwd=folder))
    assert code == 6
    assert str(process.pid) in errors
    assert "Traceback" not in errors
    wait_for(out, "progress", 2, process)
    workers_of(process)[0].kill()
    code, errors = finish(process)
    assert code == 0, errors
    same_report(out, calm)


def test_workers_that_hang_or_are_stopped_are_named_and_replaced_and_cost_no_trial(project, calm):
    folder, space = project
    out, flag = folder / "hanging", folder / "hang"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "NO_COLOR": "1"}
    process = launch([sys.executable, "-c", SHORT_LIMITS, str(flag), *arguments(space, out)], folder, environment)
    wait_for(out, "progress", 4, process)
    first = set(workers_of(process))
    flag.touch()
    while first <= set(workers_of(process)):
        assert process.poll() is None, finish(process)[1]
        time.sleep(0.1)
    wait_for(out, "progress", ledger_lines(out, "progress") + 4, process)
    min(workers_of(process), key=psutil.Process.create_time).suspend()  # the one that replaced it may still be starting
    code, errors = finish(process)
    assert code == 0, errors
    for reason in ("did no step of training or evaluation for", "did not answer for 6 s"):
        named = rf"markers/(full|adapter) .*will be trained again: node [\d.]+, a core: its worker {reason}"
        assert re.search(named, errors), errors
    same_report(out, calm)


def test_changed_data_are_refused(project, calm):
    folder, space = project
    text = (folder / "train.csv").read_text(encoding="utf-8")
    try:
        (folder / "train.csv").write_text(text + "w0 w55,no\n", encoding="utf-8")
        code, errors = finish(start(*arguments(space, calm), cwd=folder))
    finally:
        (folder / "train.csv").write_text(text, encoding="utf-8")
    assert code == 2
    assert "task markers changed" in errors
