"""A made-up sweep as the records of its ledger, and all that an MLflow store holds of it."""

import json

from search_spaces import keys
from search_spaces.language import Cell, Recipe
from search_spaces.records import Counts, Outcome, Progress, Trial

MANIFEST = {
    "sweep": "made-up-1234abcd",
    "space": "made-up",
    "title": "Made up",
    "command": "python -m orchestrator.run --space made-up",
    "stamp": ["--epochs 2", "--seeds 1"],
    "models": {"tiny": {}},
    "tasks": {"rte": {}},
    "methods": {"adapter": {}, "full": {}},
}
PREDICTIONS = {"predictions": [0.0, 1.0], "labels": [1.0, 1.0]}


def make_trial(method="adapter", lr=5e-4, seed=3, phase="search", **settings):
    return Trial(
        cell=Cell(model="tiny", task="rte", method=method),
        method=method,
        settings=settings,
        lr=lr,
        batch_size=16,
        seed=seed,
        phase=phase,
        recipe=Recipe(epochs=2),
        weights="w",
        split="s",
    )


SEARCHED = make_trial(r=8, gate=True)
FAILING = make_trial("full", lr=1e-5)
FINAL = make_trial(seed=7, phase="final", r=8, gate=True)


def asked(trial, number=0):
    return {"event": "asked", "number": number, "id": trial.id, "trial": trial.to_json()}


def started(trial):
    return {"event": "started", "id": trial.id}


def progress(trial, epoch, score, loss=0.5):
    report = Progress(
        epoch=epoch, score=score, loss=loss, best_score=score, best_epoch=epoch, seconds=2.5, memory_mib=64.0
    )
    return {"event": "progress", "id": trial.id, "progress": report.to_json(), "decision": "continue"}


def ended(trial, state="DONE", reason="epochs", cached=False, **outcome):
    outcome = Outcome(state=state, reason=reason, **{"epochs": 2, **outcome})
    return {"event": "ended", "id": trial.id, "outcome": outcome.to_json(), "cached": cached}


SWEEP = {"event": "sweep", "manifest": MANIFEST}
FINISHED = {"event": "finished"}
WHOLE = (
    SWEEP,
    asked(SEARCHED),
    started(SEARCHED),
    asked(FAILING),
    started(FAILING),
    progress(SEARCHED, 1, 60.0),
    progress(FAILING, 1, 50.0, loss=None),
    ended(FAILING, "FAILED", "diverged", epochs=1, diverged=True),
    {"event": "interrupted", "reason": "SIGTERM"},
    SWEEP,
    started(SEARCHED),
    progress(SEARCHED, 2, 65.5),
    ended(SEARCHED, best_epoch=2, best_score=65.5, counts=Counts(weights=10, module=12, trained=20, total=1000)),
    {"event": "winner", "cell": {"model": "tiny", "task": "rte", "method": "adapter"}, "id": SEARCHED.id},
    asked(FINAL),
    progress(FINAL, 1, 61.0),
    progress(FINAL, 2, 62.0),
    ended(
        FINAL,
        cached=True,
        best_epoch=2,
        best_score=62.0,
        metrics={"accuracy": 64.25, "f1/macro": 60.0},
        predictions=f"predictions/{FINAL.id}.json",
    ),
    {"event": "saved", "id": FINAL.id, "bytes": 4321, "stored": 1050},
    FINISHED,
)


def numbered(events, first=1):
    """The events as the ledger would return them, a second apart."""
    return [{**event, "seq": i, "time": 1.7e9 + i + 0.25} for i, event in enumerate(events, first)]


def write_predictions(folder):
    path = folder / "predictions" / f"{FINAL.id}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(PREDICTIONS))


def client(uri):
    from mlflow.tracking import MlflowClient

    return MlflowClient(tracking_uri=uri)


def runs_of(uri):
    """Every run of the sweep that a reader would find, duplicates apart."""
    mlflow = client(uri)
    experiment = mlflow.get_experiment_by_name("made-up")
    return [run for run in mlflow.search_runs([experiment.experiment_id]) if keys.DUPLICATE not in run.data.tags]


def content(uri):
    """All that the store holds: (kind, cell, trial) -> what its run says, with the full history of each metric."""
    mlflow, runs = client(uri), runs_of(uri)
    names = {run.info.run_id: run.info.run_name for run in runs}
    found = {}
    for run in runs:
        tags = dict(run.data.tags)
        key = (tags[keys.KIND], tags.get(keys.CELL, ""), tags.get(keys.TRIAL, ""))
        assert key not in found, f"two runs for {key}"
        tags[keys.PARENT] = names.get(tags.get(keys.PARENT), "")
        history = [mlflow.get_metric_history(run.info.run_id, name) for name in run.data.metrics]
        found[key] = {
            "name": run.info.run_name,
            "status": run.info.status,
            "span": (run.info.start_time, run.info.end_time),
            "tags": tags,
            "params": run.data.params,
            "points": sorted((p.key, p.step, p.value, p.timestamp) for points in history for p in points),
            "files": [file.path for file in mlflow.list_artifacts(run.info.run_id)],
        }
    return found
