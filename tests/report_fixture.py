"""A throw-away MLflow store with sweeps whose numbers are known, written the way the orchestrator writes them.

Creating MLflow's schema takes seconds, so it is created once and copied.
"""

import atexit
import json
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from mlflow.entities import Metric, Param
from mlflow.tracking import MlflowClient

from search_spaces import keys

TOTALS = {"minilm": 22_713_216, "bert-base-uncased": 109_482_240}
TRAINED = {"full": 1.0, "adapter": 0.022, "sparse_adapter": 0.0135, "madapter": 0.0115}
TITLES = {
    "full": "Fine-tuning",
    "adapter": "Adapter",
    "sparse_adapter": "SparseAdapter",
    "madapter": "MAdapter",
    "minilm": "MiniLM-L6",
    "bert-base-uncased": "BERT base",
    "mrpc": "MRPC",
    "stsb": "STS-B",
    "cola": "CoLA",
    "rte": "RTE",
}
SCORES = {"mrpc": "accuracy", "stsb": "pearson", "cola": "matthews", "rte": "accuracy"}
SIZES = {"mrpc": (3301, 367, 408), "stsb": (5174, 575, 1500), "cola": (7696, 855, 1043), "rte": (2241, 249, 277)}
MAJORITY = {"mrpc": 68.38, "stsb": 0.0, "cola": 0.0, "rte": 52.71}


@dataclass(frozen=True, kw_only=True)
class FakeTrial:
    """One trial as it stands in the store; `scores` holds the validation score of each epoch, 36 s apart."""

    cell: str
    name: str
    phase: str = "search"
    state: str = "DONE"
    params: Mapping[str, Any] = field(default_factory=lambda: {"lr": 1e-4, "batch_size": 8})
    seed: int = 1
    scores: tuple[float, ...] = (70.0, 80.0)
    test: Mapping[str, float] = field(default_factory=dict)
    counts: tuple[int, int, int] | None = (1_000_000, 1_010_000, 1_020_000)  # weights, module, trained
    tags: Mapping[str, str] = field(default_factory=dict)
    predictions: Mapping[str, list[float]] | None = None  # of a final: "predictions" and "labels"
    ablation: str | None = None  # of a final: the text of its file
    measured: Mapping[str, float] = field(default_factory=dict)  # further metrics


def final(cell: str, seed: int, score: float | None, **more: Any) -> FakeTrial:
    """A final that is done with this test score, or has failed without one."""
    metric = SCORES[cell.split("/")[-2]]
    test = {} if score is None else {metric: score}
    state = "FAILED" if score is None else "DONE"
    given = {"phase": "final", "state": state, "seed": seed, "test": test, "name": f"{cell}-final-{seed}", **more}
    return FakeTrial(cell=cell, **given)


def manifest(
    models: Iterable[str], tasks: Iterable[str], methods: Iterable[str], sweep: str = "sweep-1", **changes: Any
) -> dict[str, Any]:
    """The content of sweep.json."""
    searched = {"lr": {"choice": [1e-5, 5e-5, 1e-4, 5e-4]}, "batch_size": {"choice": [8, 16]}}
    return {
        "sweep": sweep,
        "space": "glue_test",
        "title": "A small comparison",
        "paper": "madapter",
        "seed": 0,
        "stamp": [],
        "command": "python -m orchestrator.run --space glue_test",
        "models": {
            m: {"title": TITLES.get(m, m), "weights": "abc123", "total": TOTALS.get(m, 1_000_000), "source": m}
            for m in models
        },
        "tasks": {task: _task(task) for task in tasks},
        "methods": {
            label: {
                "name": label,
                "title": TITLES[label],
                "family": "full" if label == "full" else "adapter",
                "paper": "",
                "fixed": {},
                "searched": dict(searched),
            }
            for label in methods
        },
        "recipe": {"epochs": 20, "patience": 5},
        "budget": {"trials": 4, "final_seeds": 3},
        "versions": {"torch": "2.13.0"},
        "commit": "0123abc",
        "dirty": False,
        "device": "cpu",
        **changes,
    }


def new_store(folder: Path) -> str:
    """An empty store in this folder; returns its tracking address."""
    shutil.copy(_schema(), folder / "mlflow.db")
    return f"sqlite:///{folder / 'mlflow.db'}"


def write_sweep(
    uri: str,
    record: Mapping[str, Any],
    trials: Iterable[FakeTrial],
    winners: Mapping[str, str] | None = None,
    happened: Mapping[str, str] | None = None,
) -> None:
    """Write a sweep with its cells and trials into the store; `winners` maps a cell to the name of a trial, `happened` holds
    tags of the sweep's run.
    """
    client = MlflowClient(tracking_uri=uri)
    known = client.get_experiment_by_name(record["space"])
    folder = Path(uri.removeprefix("sqlite:///")).parent / "artifacts"
    experiment = (
        known.experiment_id if known else client.create_experiment(record["space"], artifact_location=folder.as_uri())
    )
    shared = {keys.SWEEP: record["sweep"]}
    tags = {
        keys.KIND: "sweep",
        keys.COMMAND: record["command"],
        keys.STAMP: "; ".join(record["stamp"]),
        **(happened or {}),
    }
    sweep = client.create_run(experiment, tags={**shared, **tags}).info.run_id
    client.log_text(sweep, json.dumps(record), keys.SWEEP_FILE)
    cells: dict[str, str] = {}
    for trial in trials:
        if trial.cell not in cells:
            won = {keys.WINNER: (winners or {})[trial.cell]} if trial.cell in (winners or {}) else {}
            tags = {**shared, **place(trial.cell), keys.KIND: "cell", keys.PARENT: sweep, **won}
            cells[trial.cell] = client.create_run(experiment, tags=tags).info.run_id
        _write_trial(client, experiment, {**shared, keys.PARENT: cells[trial.cell]}, trial)


def _write_trial(client: MlflowClient, experiment: str, shared: Mapping[str, str], trial: FakeTrial) -> None:
    tags, params, points = trial_record(trial)
    run = client.create_run(experiment, tags={**shared, **tags}).info.run_id
    metrics = [Metric(name, value, 0, step) for name, value, step in points]
    client.log_batch(run, metrics=metrics, params=[Param(name, value) for name, value in params.items()])
    if trial.predictions is not None:
        client.log_text(run, json.dumps(trial.predictions), keys.PREDICTIONS_FILE)
    if trial.ablation is not None:
        client.log_text(run, trial.ablation, keys.ABLATION_FILE)


def trial_record(trial: FakeTrial) -> tuple[dict[str, str], dict[str, str], list[tuple[str, float, int]]]:
    """Tags, parameters and points (name, value, step) of a trial's run; what all runs of the sweep share left out."""
    tags = {
        **place(trial.cell),
        keys.KIND: "trial",
        keys.TRIAL: trial.name,
        keys.PHASE: trial.phase,
        keys.STATE: trial.state,
        **trial.tags,
    }
    points = []
    for epoch, score in enumerate(trial.scores, start=1):
        points += [(keys.SCORE, score, epoch), (keys.SECONDS, 36.0, epoch)]
    if trial.state != "RUNNING":
        points += [(name, value, 0) for name, value in {**end(trial), **trial.measured}.items()]
    return tags, {name: str(value) for name, value in {**trial.params, "seed": trial.seed}.items()}, points


def end(trial: FakeTrial) -> dict[str, float]:
    values: dict[str, float] = {keys.TEST + name: value for name, value in trial.test.items()}
    if trial.scores:
        best = max(trial.scores)
        values |= {keys.BEST_SCORE: best, keys.BEST_EPOCH: trial.scores.index(best) + 1}
    values |= {keys.EPOCHS: len(trial.scores)}
    if trial.counts is not None:
        total = TOTALS.get(trial.cell.rsplit("/", 2)[0], 1_000_000)
        numbers = (*trial.counts, total)
        values |= {
            keys.COUNTS + name: number
            for name, number in zip(("weights", "module", "trained", "total"), numbers, strict=True)
        }
    return values


def place(cell: str) -> dict[str, str]:
    model, task, method = cell.rsplit("/", 2)
    return {keys.CELL: cell, keys.MODEL: model, keys.TASK: task, keys.METHOD: method}


def _task(name: str) -> dict[str, Any]:
    train, validation, test = SIZES[name]
    return {
        "title": TITLES[name],
        "score": SCORES[name],
        "metrics": [SCORES[name]],
        "split": "f00d",
        "train": train,
        "validation": validation,
        "test": test,
        "majority": MAJORITY[name],
        "test_source": "GLUE dev",
        "notes": [],
    }


@cache
def _schema() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="report-schema-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    MlflowClient(tracking_uri=f"sqlite:///{folder / 'mlflow.db'}").search_experiments()
    return folder / "mlflow.db"


# Test scores of the finals of the known sweep, by cell; None is a final that failed.
KNOWN: dict[str, tuple[float | None, ...]] = {
    "minilm/mrpc/full": (84.0, 85.0, 86.0),
    "minilm/mrpc/adapter": (86.0, 86.5, 87.0),
    "minilm/mrpc/madapter": (80.0, 80.2, 80.4),
    "minilm/stsb/full": (0.0, 88.0, 89.0),  # the first one collapsed
    "minilm/stsb/adapter": (87.0, 88.0, None),
    "minilm/stsb/madapter": (89.0, 89.5, 90.0),
    "bert-base-uncased/mrpc/full": (88.0, 88.5, 88.1),
    "bert-base-uncased/mrpc/adapter": (68.0, 68.1, 68.2),  # below the constant prediction; the last one diverged
    "bert-base-uncased/mrpc/madapter": (88.0, 88.5, 88.1),
    "bert-base-uncased/stsb/full": (89.0,),  # one of three so far
    # bert-base-uncased/stsb/adapter is searching; of bert-base-uncased/stsb/madapter every trial has failed.
}


def known_trials() -> tuple[list[FakeTrial], dict[str, str]]:
    """Trials and winners of the known sweep: 2 models x 2 tasks x 3 methods, 4 trials and 3 finals per cell."""
    trials, winners = [], {}
    for cell, scores in KNOWN.items():
        trials += _search(cell)
        winners[cell] = f"{cell}-1"
        counts = (900_000, 950_000, 1_000_000) if cell.endswith("adapter") else (20_000_000, 21_000_000, 22_000_000)
        for seed, score in enumerate(scores, start=100):
            tags = {}
            if cell == "minilm/stsb/full" and seed == 100:
                tags = {keys.COLLAPSED: "true"}
            elif cell == "bert-base-uncased/mrpc/adapter" and seed == 102:
                tags = {keys.DIVERGED: "true"}
            elif score is None:
                tags = {keys.REASON: "lost its worker"}
            trials.append(final(cell, seed, score, counts=counts, tags=tags, params={"lr": 5e-4, "batch_size": 8}))
    searching, failing = "bert-base-uncased/stsb/adapter", "bert-base-uncased/stsb/madapter"
    trials += [FakeTrial(cell=searching, name="a"), FakeTrial(cell=searching, name="b", state="RUNNING", counts=None)]
    trials += [
        FakeTrial(
            cell=failing, name=f"f{i}", state="FAILED", scores=(), counts=None, tags={keys.REASON: "out of memory"}
        )
        for i in range(4)
    ]
    return trials, winners


def _search(cell: str) -> list[FakeTrial]:
    """Two trials that are done (the second wins), one stopped by ASHA, one taken from an earlier sweep."""
    return [
        FakeTrial(cell=cell, name=f"{cell}-0", params={"lr": 1e-5, "batch_size": 8}, scores=(60.0, 70.0)),
        FakeTrial(cell=cell, name=f"{cell}-1", params={"lr": 5e-4, "batch_size": 8}, scores=(60.0, 81.0, 80.0)),
        FakeTrial(cell=cell, name=f"{cell}-2", params={"lr": 5e-5, "batch_size": 8}, scores=(50.0,), state="STOPPED"),
        FakeTrial(cell=cell, name=f"{cell}-3", params={"lr": 1e-4, "batch_size": 8}, tags={keys.CACHED: "true"}),
    ]


@cache
def known_store() -> str:
    """A store that holds the known sweep "sweep-1"; tests must not write to it."""
    folder = Path(tempfile.mkdtemp(prefix="report-store-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    uri = new_store(folder)
    trials, winners = known_trials()
    write_sweep(
        uri,
        manifest(["minilm", "bert-base-uncased"], ["mrpc", "stsb"], ["full", "adapter", "madapter"]),
        trials,
        winners,
    )
    return uri
