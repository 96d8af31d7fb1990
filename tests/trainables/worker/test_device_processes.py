"""Device workers in processes of their own: their trials share one, and it is replaced when it dies, with no trial lost."""

import os
import threading
from pathlib import Path

import pytest

from tests.fixtures.cli_process import arguments, finish, start, wait_for, write_project
from tests.fixtures.ledger_lines import read

pytestmark = pytest.mark.slow
SPACE = """
from search_spaces.language import Budget, FileTask, Recipe, Space, choice, log_uniform, method

space = Space(
    models=({model!r},),
    tasks=(FileTask(name="markers", train="train.csv", test="test.csv", text="text", label="label"),),
    methods=(method("adapter", r=choice(2, 4, 8)), method("madapter", r=choice(2, 4))),
    search={{"lr": log_uniform(1e-4, 1e-2), "batch_size": choice(8, 16)}},
    recipe=Recipe(epochs=2, patience=9),
    budget=Budget(trials=7, final_seeds=3, in_flight=8),
)
"""


def test_twenty_short_trials_on_one_worker_killed_twice_are_each_done_once(tmp_path):
    write_project(tmp_path, train=160)
    space = tmp_path / "many.py"
    space.write_text(SPACE.format(model=str(tmp_path / "model")), encoding="utf-8")
    out = tmp_path / "out"
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    try:
        process = start(*arguments(space, out, "--trials-per-gpu", "8"), cwd=tmp_path)
    finally:
        os.sched_setaffinity(0, cores)
    killed = []
    watcher = threading.Thread(target=kill_workers, args=(process, out, (4, 10), killed))
    watcher.start()
    code, errors = finish(process, 600)
    watcher.join()
    assert code == 0, errors
    assert len(killed) == 2
    records = read(next(Path(out).glob("*/ledger.jsonl")).parent)
    ended = [r for r in records if r["event"] == "ended"]
    assert len(ended) == len({r["id"] for r in ended}) == 20
    assert {r["outcome"]["state"] for r in ended} <= {"DONE", "STOPPED"}


def kill_workers(process, out, moments, killed):
    import psutil

    for moment in moments:
        wait_for(out, "ended", moment, process, timeout=300)
        for child in psutil.Process(process.pid).children(recursive=True):
            if "train" in child.cmdline()[0] and child.cmdline()[0].startswith("ray::"):
                child.kill()
                killed.append(child.pid)
