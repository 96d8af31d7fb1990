"""Runs the real command line in a process of its own, on a tiny encoder and a task in CSV files."""

from __future__ import annotations

import csv
import os
import random
import subprocess
import sys
import time
from pathlib import Path

from conftest import VOCABULARY, write_tiny

ROOT = Path(__file__).resolve().parent.parent

SPACE = """
from search_spaces.language import Budget, FileTask, Recipe, Space, choice, method

space = Space(
    models=({model!r},),
    tasks=(FileTask(name="markers", train="train.csv", test="test.csv", text="text", label="label"),),
    methods=(method("full", lr=choice(3e-4, 1e-3)), method("adapter", r=choice(4, 8))),
    search={{"lr": choice(1e-3, 3e-3), "batch_size": choice(8, 16)}},
    recipe=Recipe(epochs={epochs}, patience=9),
    budget=Budget(trials=4, final_seeds=2, grace=1),
)
"""


def write_project(folder: Path, epochs: int = 4, train: int = 320) -> Path:
    """A model, data and a space file in `folder`; returns the space file."""
    model = write_tiny(folder / "model", "bert")
    draw = random.Random(0)
    for name, number in (("train", train), ("test", 60)):
        with (folder / f"{name}.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["text", "label"])
            for i in range(number):
                words = [f"w{draw.randrange(20, VOCABULARY - 5)}" for _ in range(draw.randrange(3, 9))]
                words.insert(0, f"w{i % 2}" if draw.random() < 0.95 else f"w{1 - i % 2}")
                writer.writerow([" ".join(words), "yes" if i % 2 else "no"])
    space = folder / "markers.py"
    space.write_text(SPACE.format(model=str(model), epochs=epochs), encoding="utf-8")
    return space


def arguments(space: Path, out: Path, *more: str) -> list[str]:
    return ["--space", str(space), "--gpus", "0", "--out", str(out), "--report", str(out / "report"), *more]


def start(*words: str, cwd: Path) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "NO_COLOR": "1"}
    command = [sys.executable, "-m", "orchestrator.run", *words]
    return subprocess.Popen(
        command,
        cwd=cwd,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def finish(process: subprocess.Popen[str], timeout: float = 240) -> tuple[int, str]:
    """Exit code and standard error; the process is killed when it hangs."""
    try:
        _, errors = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    return process.returncode, errors


def ledger_lines(out: Path, event: str) -> int:
    """Whole records of one kind in the only sweep below `out`, read while a driver may be writing."""
    files = list(out.glob("*/ledger.jsonl"))
    return files[0].read_bytes().count(f'"event":"{event}"'.encode()) if files else 0


def wait_for(out: Path, event: str, number: int, process: subprocess.Popen[str], timeout: float = 120) -> None:
    deadline = time.monotonic() + timeout
    while ledger_lines(out, event) < number:
        assert process.poll() is None, finish(process)[1]
        assert time.monotonic() < deadline, f"no {number} records of {event!r} in time"
        time.sleep(0.02)


def table(out: Path, name: str, without: tuple[str, ...]) -> list[dict[str, str]]:
    with (out / "report" / "tables" / f"{name}.csv").open(encoding="utf-8", newline="") as file:
        return [{k: v for k, v in row.items() if k not in without} for row in csv.DictReader(file)]
