"""Thousands of trials in a throw-away MLflow store within a second: rows go straight into the tables of the sqlite file.

MLflow's client needs some 50 ms for a run. What stands in the rows is what `report_fixture.write_sweep` would have written; a
test holds the two together.
"""

import json
import sqlite3
import uuid
import zlib
from collections.abc import Iterable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from mlflow.tracking import MlflowClient
from report_fixture import SCORES, FakeTrial, final, place, trial_record, write_sweep

from search_spaces import keys
from trainables.tasks.metrics import FORMULAS

RUN = (
    "INSERT INTO runs (run_uuid, name, source_type, source_name, entry_point_name, user_id, status, start_time, end_time, "
    "source_version, lifecycle_stage, artifact_uri, experiment_id) "
    "VALUES (?, ?, 'LOCAL', '', '', 'test', 'FINISHED', ?, ?, '', 'active', ?, ?)"
)


def write_bulk(uri: str, record: Mapping[str, Any], trials: Iterable[FakeTrial], winners: Mapping[str, str]) -> None:
    """The sweep of `record` with these trials, newest in the store; its runs have the same ids every time."""
    write_sweep(uri, record, ())
    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name(record["space"])
    query = f"tags.`{keys.SWEEP}` = '{record['sweep']}'"
    sweep = client.search_runs([experiment.experiment_id], query)[0].info.run_id
    rows: dict[str, list[tuple[Any, ...]]] = {
        name: [] for name in ("runs", "tags", "params", "metrics", "latest_metrics")
    }

    def run(tags: Mapping[str, str], params: Mapping[str, str], points: list[tuple[str, float, int]]) -> str:
        name = uuid.uuid5(uuid.NAMESPACE_OID, f"{record['sweep']} {tags[keys.CELL]} {tags.get(keys.TRIAL)}").hex
        started = len(rows["runs"])
        folder = f"{experiment.artifact_location}/{name}/artifacts"
        rows["runs"].append((name, name, started, started, folder, experiment.experiment_id))
        rows["tags"] += [(key, value, name) for key, value in {**tags, keys.SWEEP: record["sweep"]}.items()]
        rows["params"] += [(key, value, name) for key, value in params.items()]
        rows["metrics"] += [(key, value, 0, name, step, 0) for key, value, step in points]
        latest = {key: (key, value, 0, name, step, 0) for key, value, step in points}
        rows["latest_metrics"] += latest.values()
        return name

    cells: dict[str, str] = {}
    for trial in trials:
        if trial.cell not in cells:
            won = {keys.WINNER: winners[trial.cell]} if trial.cell in winners else {}
            cells[trial.cell] = run({**place(trial.cell), keys.KIND: "cell", keys.PARENT: sweep, **won}, {}, [])
        tags, params, points = trial_record(trial)
        name = run({**tags, keys.PARENT: cells[trial.cell]}, params, points)
        if trial.predictions is not None:
            folder = Path(experiment.artifact_location.removeprefix("file://")) / name / "artifacts"
            folder.mkdir(parents=True)
            (folder / keys.PREDICTIONS_FILE).write_text(json.dumps(trial.predictions), encoding="utf-8")
    _insert(Path(uri.removeprefix("sqlite:///")), rows)


def answered(cell: str, seed: int, examples: int, quality: float = 0.8, **more: Any) -> FakeTrial:
    """A final with predictions that give its score; labels depend on the task alone, answers on cell and seed.

    `quality`: share of right answers, or for a regression the weight of the label.
    """
    task = cell.split("/")[1]
    truth = np.random.default_rng(zlib.crc32(task.encode()))
    generator = np.random.default_rng(zlib.crc32(f"{cell} {seed}".encode()))
    if SCORES[task] == "pearson":
        labels = truth.uniform(0, 5, examples).round(1)
        predictions = (quality * labels + (1 - quality) * generator.normal(size=examples)).round(3)
    else:
        labels = (truth.random(examples) < 0.6).astype(float)
        predictions = np.where(generator.random(examples) < quality, labels, 1 - labels)
    score = 100 * FORMULAS[SCORES[task]](predictions, labels)
    told = {"predictions": predictions.tolist(), "labels": labels.tolist()}
    return final(cell, seed, score, predictions=told, **more)


def _insert(path: Path, rows: Mapping[str, list[tuple[Any, ...]]]) -> None:
    columns = {
        "tags": "(key, value, run_uuid)",
        "params": "(key, value, run_uuid)",
        "metrics": "(key, value, timestamp, run_uuid, step, is_nan)",
        "latest_metrics": "(key, value, timestamp, run_uuid, step, is_nan)",
    }
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.executemany(RUN, rows["runs"])
        for name, order in columns.items():
            marks = ", ".join("?" * (order.count(",") + 1))
            connection.executemany(f"INSERT INTO {name} {order} VALUES ({marks})", rows[name])
