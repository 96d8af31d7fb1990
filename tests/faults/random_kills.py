"""Kills drivers at random steps of their writing, again and again, and compares what they end with to an undisturbed twin.

    python -m tests.faults.random_kills --number 1000            # drivers without tracking store and report: 40 ms each
    python -m tests.faults.random_kills --number 100 --whole     # the whole command line: seconds each

Each sweep is killed up to `MOST` times in a row and then runs to its end. Some kills come from outside, at a random time, also
within SQLite's own writes. The whole command line also gets SIGTERM, SIGHUP and SIGINT, some followed by SIGKILL.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import shutil
import signal
import sqlite3
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from search_spaces import keys
from search_spaces.language import Budget, Recipe
from tests.faults.fake_driver import fork, replace_ray
from tests.faults.fake_training import train_sweep
from tests.faults.write_kills import WriteKills
from tests.fixtures.cli_process import arguments, write_project
from tests.fixtures.fakes import make_space
from tests.fixtures.ledger_lines import read

MOST = 8
# The exit codes after the signals that a sweep handles.
CODES = {signal.SIGTERM: 75, signal.SIGHUP: 75, signal.SIGINT: 130}
# A file system in memory, where fsync and the removal of folders cost nothing; None: the usual one for temporary files.
MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
TIMEOUT = 300.0  # seconds after which a driver counts as hung
# What differs between undisturbed sweeps: clocks, memory, names given by MLflow, and commands, which name the folder.
UNEQUAL = {
    "run_id",
    "seconds",
    "memory_mib",
    "search_hours",
    "final_hours",
    "winner_run",
    "final_runs",
    "command",
    "finals_command",
}


class Drivers:
    """Starts drivers of one sweep, each time in another folder `out` of `root`."""

    def __init__(self, root: Path, whole: bool):
        self.root, self.whole = root, whole
        self._space = make_space(
            tasks=("t",), recipe=Recipe(epochs=3, patience=9), budget=Budget(trials=3, final_seeds=1, grace=1)
        )
        if whole:
            for name in ("matplotlib.pyplot", "mlflow", "orchestrator.driver", "reports.build"):
                import_module(name)  # once, not in every child
            self._file = write_project(root)
            _make_schema(root / "empty.db")

    def start(self, out: Path, seed: int, at: tuple[str, int] | None) -> int:
        """Start a driver that is killed at a step (see `WriteKills`); return its process id."""
        out.mkdir(exist_ok=True)
        if self.whole and seed % 10 and not (out / "mlflow.db").exists():
            shutil.copyfile(self.root / "empty.db", out / "mlflow.db")  # every tenth sweep makes it

        def work() -> int:
            kills = WriteKills(out, at, random.Random(seed))
            code = self._drive(out, seed, kills)
            out.with_suffix(".steps").write_text(json.dumps(kills.num_steps))
            return code

        return fork(work, out.with_suffix(".log"))

    def _drive(self, out: Path, seed: int, kills: WriteKills) -> int:
        trained = out.with_suffix(".trained")
        if not self.whole:
            kills.install()
            train_sweep(self._space, out, trained, seed)
            return 0
        from orchestrator.run import main

        os.chdir(self._file.parent)
        replace_ray(seed, trained)
        kills.install()
        return main(arguments(self._file, out))


def _make_schema(path: Path) -> None:
    from mlflow.tracking import MlflowClient

    MlflowClient(tracking_uri=f"sqlite:///{path}").search_experiments()


def exit_code(child: int) -> int:
    """Wait for a child; negative: the signal that ended it. Raises TimeoutError, after a kill, if it hangs."""
    deadline = time.monotonic() + TIMEOUT
    while time.monotonic() < deadline:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.001)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    raise TimeoutError(f"driver {child} did not end")


def facts(out: Path, whole: bool) -> dict[str, Any]:
    """Return what must be equal: what ledger, disk, store and report say. Raises AssertionError for what is doubled."""
    folder = next(out.glob("*/ledger.jsonl")).parent
    records = read(folder)
    of: Callable[[str], list[dict[str, Any]]] = lambda event: [r for r in records if r["event"] == event]  # noqa: E731
    asked, ended = [r["id"] for r in of("asked")], [r["id"] for r in of("ended")]
    epochs = [(r["id"], r["progress"]["epoch"]) for r in of("progress")]
    for each in (asked, ended, epochs):
        assert len(each) == len(set(each)), f"doubled: {[x for x, n in Counter(each).items() if n > 1]}"
    found = {
        "asked": sorted((r["id"], r["number"], json.dumps(r["trial"], sort_keys=True)) for r in of("asked")),
        "ended": sorted((r["id"], json.dumps(r["outcome"], sort_keys=True)) for r in of("ended")),
        "curves": sorted((r["id"], json.dumps(r["progress"], sort_keys=True), r["decision"]) for r in of("progress")),
        "winners": sorted(r["id"] for r in of("winner")),
        "sizes": sorted({(r["id"], r["bytes"], r["stored"]) for r in of("saved")}),
        "trained": sorted(set(out.with_suffix(".trained").read_text().splitlines())),
        "checkpoints": sorted(path.name for path in (folder / "checkpoints").iterdir()),
        "predictions": {path.name: path.read_text() for path in (folder / "predictions").iterdir()},
        "studies": _studies(folder),
    }
    return {**found, "store": _store(out), "tables": _tables(out)} if whole else found


def _studies(folder: Path) -> list[str]:
    """The operations of Optuna's journal, without times."""
    lines = (folder / "optuna-journal.log").read_text().splitlines()
    kept = ({k: v for k, v in json.loads(line).items() if "datetime" not in k and k != "worker_id"} for line in lines)
    return sorted(json.dumps(each, sort_keys=True) for each in kept)


def _store(out: Path) -> list[str]:
    """The runs of the sweep: of a trial all points, of a cell and of the sweep the last ones, since some are of reports so far.

    Raises AssertionError for two runs of one trial.
    """
    found: dict[str, dict[str, Any]] = {}
    with sqlite3.connect(out / "mlflow.db") as store:
        for run, status in store.execute("select run_uuid, status from runs"):
            found[run] = {"status": status, "tags": {}, "params": {}, "points": []}
        for table in ("tags", "params"):
            for run, key, value in store.execute(f"select run_uuid, key, value from {table}"):
                found[run][table][key] = value
        for table in ("metrics", "latest_metrics"):
            for run, key, value, step in store.execute(f"select run_uuid, key, value, step from {table}"):
                of_trial = keys.TRIAL in found[run]["tags"]
                timed = any(word in key for word in ("second", "time", "memory", "hours"))
                if not timed and of_trial == (table == "metrics"):
                    found[run]["points"].append([key, value, step if of_trial else None])
    names = [tuple(run["tags"].get(key, "") for key in (keys.KIND, keys.CELL, keys.TRIAL)) for run in found.values()]
    doubled = [name for name, number in Counter(names).items() if number > 1 and name[0] != "duplicate"]
    assert not doubled, f"two runs: {doubled}"
    return sorted(
        json.dumps([*name, run["status"], run["params"], sorted(run["points"])], sort_keys=True)
        for name, run in zip(names, found.values(), strict=True)
        if name[0] != "duplicate"
    )


def _tables(out: Path) -> dict[str, list[dict[str, str]]]:
    found = {}
    for path in sorted((out / "report" / "tables").glob("*.csv")):
        with path.open(newline="", encoding="utf-8") as file:
            rows = ({k: v for k, v in row.items() if k not in UNEQUAL} for row in csv.DictReader(file))
            found[path.name] = sorted(rows, key=lambda row: json.dumps(row, sort_keys=True))
    return found


def leftovers(out: Path) -> list[str]:
    """Unfinished files that no later driver has removed, but for a torn last line, which is kept for the user."""
    ends = (".tmp", ".new", ".old")
    return sorted(p.name for p in out.rglob("*") if p.suffix in ends or p.name.startswith("."))


def kill_at_random(root: Path, number: int, seed: int = 0, whole: bool = False) -> dict[str, Any]:
    """Kill `number` drivers, let each sweep go on to its end, and return the counts and the differences to the twin."""
    drivers, draw = Drivers(root, whole), random.Random(seed)
    calm = root / "calm"
    began = time.monotonic()
    assert exit_code(drivers.start(calm, 0, None)) == 0, calm.with_suffix(".log").read_text()
    seconds = time.monotonic() - began
    steps = json.loads(calm.with_suffix(".steps").read_text())
    expected = facts(calm, whole)
    kills: Counter[str] = Counter()
    wrong, left, sweeps = [], Counter[str](), 0
    while kills.total() < number:
        sweeps += 1
        out = root / f"s{sweeps}"
        killed = 0
        for _ in range(draw.randint(1, min(MOST, number - kills.total()))):
            kind = draw.choice(("file", "sql", "time", "signal") if whole else ("file", "file", "file", "time"))
            share = 1 / (1 + killed)  # of the steps: every driver has fewer left
            at = (kind, draw.randint(1, round(share * steps[kind]))) if kind in steps else None
            child = drivers.start(out, sweeps * MOST + killed, at)
            sent = signal.SIGKILL
            if at is None:
                time.sleep(draw.uniform(0.05 * seconds, share * seconds))
                sent = draw.choice(list(CODES)) if kind == "signal" else sent
                os.kill(child, sent)
                if kind == "signal" and draw.random() < 0.3:  # as schedulers do, if the grace is over
                    time.sleep(draw.uniform(0, 0.2 * seconds))
                    os.kill(child, signal.SIGKILL)
            code = exit_code(child)
            if code == 0:
                break  # it ended before that step
            if code not in (-signal.SIGKILL, CODES.get(sent)):
                wrong.append(f"{out.name}: exit code {code} after {sent.name}: {_end(out)}")
            killed += 1
            kills[kind] += 1
        problem = _finish(drivers, out, sweeps, killed, expected)
        if problem:
            wrong.append(f"{out.name} after {killed} kills: {problem}")
        else:
            left.update(name.split(".")[1] for name in leftovers(out))
            for path in (out, *root.glob(f"{out.name}.*")):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
    return {"kills": dict(kills), "sweeps": sweeps, "steps": steps, "wrong": wrong, "left": dict(left)}


def _finish(drivers: Drivers, out: Path, seed: int, killed: int, expected: dict[str, Any]) -> str:
    """Let a sweep go on to its end; return what is wrong with it, "" for nothing."""
    code = exit_code(drivers.start(out, seed, None))
    if code:
        return f"exit code {code}: {_end(out)}"
    try:
        found = facts(out, drivers.whole)
    except AssertionError as error:
        return str(error)
    different = [name for name in expected if found[name] != expected[name]]
    repeated = len(out.with_suffix(".trained").read_text().splitlines()) - len(found["trained"])
    if repeated > killed:
        different.append(f"{repeated} epochs trained again")
    return ", ".join(different)


def _end(out: Path) -> str:
    return out.with_suffix(".log").read_text(errors="replace")[-500:]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--number", type=int, default=1000, help="drivers to kill (default: 1000)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the kills (default: 0)")
    parser.add_argument("--whole", action="store_true", help="with data, tracking store and report")
    options = parser.parse_args()
    root = Path(tempfile.mkdtemp(prefix="kills-", dir=MEMORY))
    began = time.monotonic()
    found = kill_at_random(root, options.number, options.seed, options.whole)
    print(json.dumps({**found, "seconds": round(time.monotonic() - began)}, indent=1))
    if found["wrong"]:
        print(f"left for a look: {root}")
        return 1
    shutil.rmtree(root)
    return 0


if __name__ == "__main__":
    sys.exit(main())
