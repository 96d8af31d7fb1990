"""What the driver costs: results accepted per second, milliseconds per trial, and the way from 'suggested' to the first step.

    python -m benchmarks.control_plane [--rounds 3] [--json FILE]

C9: the results of many short trials through one message per worker, against one `tune.report` per result; MLflow in batches
against single calls. Workers, mailbox, Ray Tune, ledger (synced) and MLflow (sqlite) are real, only the trials are closed-form
curves (`benchmarks/fake_worker.py`). Arms run one after the other in each round, each in a process of its own.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks import measure
from search_spaces.events import EpochReported, LedgerRecord, SweepOpened, TrialStarted

Marks = list[tuple[float, dict[str, float]]]
# First and last trial of each window whose cost is compared.
WINDOWS = {"10": (10, 40), "100": (100, 200), "1000": (900, 1000)}
# The call for orders of the only worker where there is no mailbox.
CALL = {"worker": "w", "process": "p", "node": "n", "device": "a core"}
EPOCH_SECONDS = 0.02  # of all trials of a worker
# Ray's workers are nicer than other processes by default: on a busy machine they would be starved, and that measured.
NICE = {"RAY_worker_niceness": "0"}


class EndTimes:
    """Notes a mark whenever a trial ends, in the place of checkpoint retention."""

    def __init__(self, marks: Marks, mark: Callable[[], tuple[float, dict[str, float]]]):
        self._marks, self._mark = marks, mark

    def trial_ended(self, trial_id: str) -> None:
        self._marks.append(self._mark())


class NoMailbox:
    """Stands for the mailbox where reports are handed to the controller directly."""

    def exchange(self, orders: object, verdicts: object) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        return [], []


def cpu_of_threads() -> dict[str, float]:
    """CPU seconds of this process by thread; Ray's own threads are what is left of "all"."""
    named = {t.name: time.clock_gettime(time.pthread_getcpuclockid(t.ident)) for t in threading.enumerate() if t.ident}
    kept = {name: seconds for name, seconds in named.items() if name in ("MainThread", "controller", "tracking")}
    return {**kept, "all": time.process_time()}


def workers(trials: int, epochs: int, slots: int, cells: int, seconds: float, grace: int = 2) -> dict[str, Any]:
    """A sweep of fake trials through two workers, with ledger and MLflow on."""
    from orchestrator.execution.cluster import Share, cluster

    root = Path(tempfile.mkdtemp(prefix="control-", dir="/tmp"))
    marks: Marks = []
    with cluster(0, 1, None) as (_, temporary):
        # Not before: Ray reads its token when it is imported.
        from benchmarks.fake_sweep import make_paths, make_space, make_sweep
        from benchmarks.fake_worker import trainable
        from orchestrator.execution import tune_runner
        from orchestrator.execution.progress import ProgressDisplay
        from orchestrator.search.trial_names import TrialNames

        space = make_space(trials, epochs, in_flight=max(2, slots // cells), cells=cells, grace=grace)
        tracker: list[Any] = []
        sweep = make_sweep(space, root / "sweep", lambda records: tracker[0].notify())
        tracker.append(_tracker(root, sweep))
        tune_runner.DeviceTrainable = trainable(seconds)
        share = Share(devices=2, cpu=1, gpu=0, per_device=slots // 2)
        runner = tune_runner.TuneRunner(
            sweep=sweep,
            paths=make_paths(space, root),
            checkpoints=EndTimes(marks, lambda: (time.perf_counter(), cpu_of_threads())),
            display=ProgressDisplay(TrialNames(space), Console(quiet=True)),
            drain=tune_runner.Drain(""),
        )
        runner.run(share, temporary)
        assert sweep.finished
        accepted = time.perf_counter()
        assert tracker[0].drain(300)
        delivered = time.perf_counter()
        tracker[0].close()
    with closing(sweep._ledger):
        return {**_measured(list(sweep._ledger.records), marks), "mlflow_seconds_after": delivered - accepted}


def _measured(records: list[LedgerRecord], marks: Marks) -> dict[str, Any]:
    """From the ledger, whose times are the driver's clock when a batch was written."""
    reports = [(r.time, r.event) for r in records if isinstance(r.event, EpochReported)]
    times = sorted(time for time, _ in reports)
    started = {r.event.id: r.time for r in records if isinstance(r.event, TrialStarted)}
    first = {each.id: each.progress.seconds for _, each in reports if each.progress.epoch == 1}
    warm = list(started)[len(started) // 2 :]
    middle = times[len(times) // 10 : -len(times) // 10]
    return {
        "results": len(times),
        "trials": len(marks),
        "results_per_second": len(middle) / (middle[-1] - middle[0]),
        "start_ms": [1e3 * (first[i] - started[i]) for i in warm if i in first],
        "per_trial": {name: _window(marks, *window) for name, window in WINDOWS.items() if window[1] <= len(marks)},
    }


def _window(marks: Marks, begin: int, end: int) -> dict[str, float]:
    """Milliseconds per trial between two ends: wall, and CPU of the driver by thread."""
    (wall, cpu), (wall_after, cpu_after) = marks[begin - 1], marks[end - 1]
    spent = {name: 1e3 * (cpu_after[name] - cpu[name]) / (end - begin) for name in cpu_after if name in cpu}
    return {"wall": 1e3 * (wall_after - wall) / (end - begin), **spent}


def accept(trials: int, epochs: int, batch: int) -> dict[str, float]:
    """The driver's part alone, without Ray: results entered `batch` at a time, with the ledger synced and MLflow on."""
    from benchmarks.fake_sweep import make_paths, make_space, make_sweep
    from benchmarks.fake_worker import FakeResident
    from orchestrator.execution.controller import Controller
    from orchestrator.execution.worker_pool import WorkerPool
    from search_spaces.records import Trial

    root = Path(tempfile.mkdtemp(prefix="control-", dir="/tmp"))
    tracker: list[Any] = []
    space = make_space(trials, epochs, in_flight=trials, grace=epochs)
    sweep = make_sweep(space, root / "sweep", lambda records: tracker[0].notify())
    tracker.append(_tracker(root, sweep))
    paths = make_paths(space, root)
    pool = WorkerPool(1, trials)
    controller = Controller(sweep, NoMailbox(), paths, EndTimes([], lambda: (0.0, {})), pool)
    orders, _ = controller.serve([CALL], [])
    residents = [FakeResident(Trial.from_json(job["trial"])) for job in orders["w"]["jobs"]]
    epochs_of = [[_epoch(resident) for resident in residents] for _ in range(epochs)]
    messages = [each[i : i + batch] for each in epochs_of for i in range(0, trials, batch)]
    wall, cpu, number = time.perf_counter(), time.thread_time(), trials * epochs
    for message in messages:
        controller.serve([], message)
    wall, cpu = time.perf_counter() - wall, time.thread_time() - cpu
    assert tracker[0].drain(300)
    tracker[0].close()
    return {"results_per_second": number / wall, "cpu_ms_per_result": 1e3 * cpu / number}


def decide(trials: int, cells: int, slots: int) -> dict[str, dict[str, float]]:
    """CPU milliseconds per trial of 4 epochs in the driver's own code, early and late, and how much of it is Optuna's."""
    from benchmarks.fake_sweep import make_paths, make_space, make_sweep
    from benchmarks.fake_worker import FakeResident
    from orchestrator.execution.controller import Controller
    from orchestrator.execution.worker_pool import WorkerPool
    from orchestrator.search.sampler import TpeStudy
    from search_spaces.records import Trial

    spent = {"all": 0.0, "optuna": 0.0}
    real = TpeStudy.ask

    def ask(self: TpeStudy) -> Any:
        began = time.thread_time()
        try:
            return real(self)
        finally:
            spent["optuna"] += time.thread_time() - began

    TpeStudy.ask = ask  # type: ignore[method-assign]
    root = Path(tempfile.mkdtemp(prefix="control-", dir="/tmp"))
    space = make_space(trials, 4, in_flight=max(2, slots // cells), cells=cells, grace=4)
    sweep = make_sweep(space, root / "sweep")
    marks: Marks = []
    paths = make_paths(space, root)
    controller = Controller(
        sweep, NoMailbox(), paths, EndTimes(marks, lambda: (0.0, dict(spent))), WorkerPool(1, slots)
    )
    live: list[Any] = []
    while not sweep.finished:
        messages = [_epoch(resident) for resident in live]
        began = time.thread_time()
        orders, verdicts = controller.serve([CALL], messages)
        spent["all"] += time.thread_time() - began
        live = [r for r in live if verdicts[CALL["process"], r.trial.id]]
        live += [FakeResident(Trial.from_json(job["trial"])) for job in orders.get("w", {"jobs": []})["jobs"]]
    return {name: _window(marks, *window) for name, window in WINDOWS.items() if window[1] <= len(marks)}


def _epoch(resident: Any) -> dict[str, Any]:
    return {**CALL, "id": resident.trial.id, **resident.report_epoch().to_json()}


def _tracker(root: Path, sweep: Any) -> Any:
    """MLflow's writer, connected."""
    from orchestrator.tracking.tracker import Tracker

    manifest = {"sweep": "fake", "space": "fake", "title": "fake", "models": {}, "tasks": {}, "methods": {}}
    sweep._ledger.append(SweepOpened(format=1, manifest=manifest))
    database = f"sqlite:///{root / 'mlflow.db'}"
    tracker = Tracker(database, root / "artifacts", root / "sweep", sweep._ledger.records)
    tracker.start()
    assert tracker.drain(120)
    return tracker


def reports(trials: int, epochs: int) -> dict[str, Any]:
    """The same results one by one: each is a result of Ray Tune's, entered and synced before its trial goes on."""
    from orchestrator.execution.cluster import cluster

    root = Path(tempfile.mkdtemp(prefix="control-", dir="/tmp"))
    with cluster(0, 1, None) as (_, temporary):
        from benchmarks.per_report import run_reports

        return {"results_per_second": run_reports(root, temporary, trials, epochs)}


def mlflow_calls(points: int) -> dict[str, float]:
    """Seconds per metric of one batch, and of as many single calls, on sqlite."""
    from mlflow.entities import Metric
    from mlflow.tracking import MlflowClient

    folder = Path(tempfile.mkdtemp(prefix="control-", dir="/tmp"))
    client = MlflowClient(tracking_uri=f"sqlite:///{folder / 'mlflow.db'}")
    run = client.create_run(client.create_experiment("x", artifact_location=folder.as_uri())).info.run_id
    metrics = [Metric(f"m{i % 4}", float(i), 1, i) for i in range(points)]
    client.log_batch(run, metrics[:4])
    began = time.perf_counter()
    for i, metric in enumerate(metrics):
        client.log_metric(run, "single" + metric.key, metric.value, step=i)
    single = (time.perf_counter() - began) / points
    began = time.perf_counter()
    client.log_batch(run, metrics)
    return {"single": single, "batch": (time.perf_counter() - began) / points}


ARMS: dict[str, Callable[..., Any]] = {
    "workers": workers,
    "accept": accept,
    "decide": decide,
    "reports": reports,
    "mlflow": mlflow_calls,
}


def apart(arm: str, **sizes: float) -> Any:
    """Run an arm in a fresh process; returns what it measured."""
    with tempfile.NamedTemporaryFile("r", suffix=".json") as file:
        command = [sys.executable, "-m", "benchmarks.control_plane", "--arm", arm, "--sizes", json.dumps(sizes)]
        environment = {
            **os.environ,
            "CONTROL_PLANE_OUT": file.name,
            **NICE,
            "PYTHONPATH": str(Path(__file__).parent.parent),
        }
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return json.load(file)


def throughput(rounds: int) -> dict[str, Any]:
    """C9: many residents with long curves, so that results and not trials are the load."""
    sizes = {"trials": 32, "epochs": 200, "grace": 200, "slots": 32, "cells": 2, "seconds": EPOCH_SECONDS}
    found: dict[str, list[Any]] = {"workers": [], "reports": [], "mlflow": []}
    for _ in range(rounds):
        found["workers"].append(apart("workers", **sizes))
        found["reports"].append(apart("reports", trials=16, epochs=60))
        found["mlflow"].append(apart("mlflow", points=400))
    alone = {batch: [apart("accept", trials=64, epochs=60, batch=batch) for _ in range(rounds)] for batch in (1, 64)}
    accepted = {batch: [each["results_per_second"] for each in runs] for batch, runs in alone.items()}
    rates = {arm: [each["results_per_second"] for each in found[arm]] for arm in ("workers", "reports")}
    single, batch = ([each[name] for each in found["mlflow"]] for name in ("single", "batch"))
    return {
        "results_per_second": {arm: measure.Spread.of(values) for arm, values in rates.items()},
        "driver_alone": {
            str(batch): {name: measure.Spread.of([each[name] for each in runs]) for name in runs[0]}
            for batch, runs in alone.items()
        },
        "driver_alone_batch_against_single": measure.ratio(accepted[64], accepted[1]),
        "workers_against_reports": measure.ratio(rates["workers"], rates["reports"]),
        "mlflow_batch_against_single": measure.ratio(single, batch),
        "mlflow_seconds_after_last_result": measure.Spread.of([e["mlflow_seconds_after"] for e in found["workers"]]),
    }


def cost_per_trial(runs: Sequence[dict[str, Any]], decisions: dict[str, Any]) -> dict[str, Any]:
    """What a short trial costs the driver, early and late, and how long it takes to its first step. `runs`: of `workers`."""
    windows = {
        window: {
            name: measure.Spread.of([r["per_trial"][window][name] for r in runs])
            for name in runs[0]["per_trial"][window]
        }
        for window in runs[0]["per_trial"]
    }
    starts = [sorted(r["start_ms"]) for r in runs]
    return {
        "ms_per_trial": windows,
        "decisions_ms_per_trial": decisions,
        "start_ms_median": measure.Spread.of([statistics.median(s) for s in starts]),
        "start_ms_95th": measure.Spread.of([s[int(0.95 * len(s))] for s in starts]),
    }


def everything(rounds: int) -> dict[str, Any]:
    sizes = {"trials": 51, "epochs": 4, "seconds": EPOCH_SECONDS, "cells": 20, "slots": 16}
    found = throughput(rounds)
    runs = [apart("workers", **sizes) for _ in range(rounds)]
    decisions = {f"{n} cells": apart("decide", trials=t, cells=n, slots=16) for n, t in {20: 51, 1: 1010}.items()}
    return {"C9": found, "per trial": cost_per_trial(runs, decisions)}


def smoke() -> dict[str, Any]:
    """A few trials in this process, which starts Ray once; the arm `reports`, which has a Ray of its own, is left out."""
    mlflow, alone = mlflow_calls(40), accept(8, 4, 8)
    decisions = {"2 cells": decide(trials=24, cells=2, slots=4)}
    run = workers(trials=6, epochs=4, slots=4, cells=2, seconds=EPOCH_SECONDS)
    found = {
        "results_per_second": {"workers": measure.Spread.of([run["results_per_second"]])},
        "driver_alone": {"8": {name: measure.Spread.of([value]) for name, value in alone.items()}},
        "mlflow_batch_against_single": measure.ratio([mlflow["single"]], [mlflow["batch"]]),
    }
    return {"C9": found, "per trial": cost_per_trial([run], decisions)}


def main() -> None:
    parser = measure.parser(__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--smoke", action="store_true", help="a few trials, to show that it runs")
    parser.add_argument("--arm", choices=sorted(ARMS), help="run one arm in this process (internal)")
    parser.add_argument("--sizes", type=json.loads, default={})
    arguments = parser.parse_args()
    if arguments.arm:
        Path(os.environ["CONTROL_PLANE_OUT"]).write_text(json.dumps(ARMS[arguments.arm](**arguments.sizes)))
        return
    flags = measure.conditions(clock="wall for rates and starts, CPU time by thread for costs")
    results = smoke() if arguments.smoke else everything(arguments.rounds)
    _print(results)
    measure.write(arguments.json, "control_plane", flags, results)


def _print(results: dict[str, Any]) -> None:
    rows = [[name, str(value)] for name, value in results["C9"].items() if isinstance(value, measure.Spread)]
    rows += [[f"results per second, {arm}", str(v)] for arm, v in results["C9"]["results_per_second"].items()]
    for batch, each in results["C9"]["driver_alone"].items():
        rows += [[f"driver alone, {batch} at a time, {name}", str(v)] for name, v in each.items()]
    rows += [[name, str(v)] for name, v in results["per trial"].items() if isinstance(v, measure.Spread)]
    measure.print_table(["what", "measured"], rows)
    costs = [
        [window, name, str(v)]
        for window, each in results["per trial"]["ms_per_trial"].items()
        for name, v in each.items()
    ]
    costs += [
        [window, f"decisions of a sweep of {cells}: {name}", measure.short(ms)]
        for cells, windows in results["per trial"]["decisions_ms_per_trial"].items()
        for window, each in windows.items()
        for name, ms in each.items()
        if name != "wall"
    ]
    measure.print_table(["at trial", "thread", "ms per trial"], costs)


if __name__ == "__main__":
    main()
