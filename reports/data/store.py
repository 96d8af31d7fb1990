"""Reads one sweep out of MLflow completely. The only file of this package that imports mlflow.

Never writes. Names of tags and metrics are those of `search_spaces/keys.py`.
"""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd

from reports.data import histories, store_address
from reports.data.manifest import Manifest, parse
from reports.data.store_address import StoreError
from reports.data.trial_table import trial_table
from search_spaces import keys
from search_spaces.environment import changed, unless_set
from search_spaces.loading import nearest
from search_spaces.records import Ablation
from search_spaces.tracking_uri import redact

Answer = TypeVar("Answer")
log = logging.getLogger(__name__)

PAGE = 1000
_QUIET = {  # a missing server is an answer within seconds, and reading sends no telemetry
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """Predictions of one final on the test split, and the labels: class indices or values, [n] each."""

    predicted: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True, kw_only=True, eq=False)  # compared and cached by identity
class StoredSweep:
    """One sweep, read completely.

    `trials` has one row per trial of a cell in the manifest, columns as in `reports/data/trial_table.py`; `epochs` one row per
    run and epoch, as in `reports/data/histories.py`. `winners` maps a cell ("model/task/label") to a trial id. `predictions`
    maps the run id of a final to its predictions, `ablations` to its scores without spans of layers, where these were stored.
    `tracking_uri` and `command` carry no credentials. `curtailed` is the time budget that ended the searches ("40h"), empty when
    none did; `manifest.reductions` says so, too.
    """

    manifest: Manifest
    trials: pd.DataFrame
    epochs: pd.DataFrame
    winners: Mapping[str, str]
    predictions: Mapping[str, Predictions]
    ablations: Mapping[str, Ablation]
    run_id: str
    command: str
    tracking_uri: str
    curtailed: str = ""


def find(tracking_uri: str, space: str = "", sweep: str = "") -> str:
    """Id of the sweep that is meant: the named one, else the newest of the space, else the newest of all.

    Raises ValueError naming the nearest known names, StoreError when the store cannot be read or holds no sweep.
    """
    with _client(tracking_uri) as client:
        runs = _sweep_runs(client)
    if not runs:
        raise StoreError(f"no sweep is recorded in {redact(tracking_uri)}")
    spaces = {run.info.run_id: name for run, name in runs}
    if space and space not in spaces.values():
        raise ValueError(f"--space {space!r} has no sweep in this store: {nearest(space, set(spaces.values()))}")
    known = [run for run, name in runs if not space or name == space]
    ids = [run.data.tags.get(keys.SWEEP, "") for run in known]
    if sweep and sweep not in ids:
        raise ValueError(f"--sweep {sweep!r} is not in this store: {nearest(sweep, set(ids))}")
    return sweep or ids[0]


def read(tracking_uri: str, sweep: str) -> StoredSweep:
    """Read a sweep; raises ValueError when there is none of that id, StoreError when it cannot be read."""
    with _client(tracking_uri) as client:
        runs = _sweep_runs(client)
        found = [run for run, _ in runs if run.data.tags.get(keys.SWEEP) == sweep]
        if not found:
            raise ValueError(
                f"sweep {sweep!r} is not in this store: {nearest(sweep, {_sweep_id(run) for run, _ in runs})}"
            )
        # A retried request can leave a second run of the same sweep behind; the newest one is kept up to date.
        run = found[0]
        manifest = _with_events(_manifest(client, run), run)
        experiments = [run.info.experiment_id]
        cells = _search(client, experiments, keys.KIND, "cell", sweep)
        trials = _search(client, experiments, keys.KIND, "trial", sweep)
        epochs = histories.epochs(tracking_uri, client, trials, sweep)
        finals = _finals(trials)
        predictions = _files(client, finals, keys.PREDICTIONS_FILE, parse_predictions)
        ablated = [run for run in finals if _is_ablated(manifest, run)]
        ablations = _files(client, ablated, keys.ABLATION_FILE, parse_ablation)
    return StoredSweep(
        manifest=manifest,
        trials=trial_table(manifest, trials, _seconds(trials, epochs)),
        epochs=epochs,
        winners=_winners(cells),
        predictions=predictions,
        ablations=ablations,
        run_id=run.info.run_id,
        command=redact(run.data.tags.get(keys.COMMAND) or manifest.command),
        tracking_uri=redact(tracking_uri),
        curtailed=run.data.tags.get(keys.CURTAILED, ""),
    )


@contextmanager
def _client(tracking_uri: str) -> Iterator[Any]:
    """An MLflow client for an address that was checked; errors of MLflow become a StoreError."""
    store_address.check(tracking_uri)
    with changed(unless_set(_QUIET)):
        # Takes two seconds, and --help should not.
        from mlflow.exceptions import MlflowException
        from mlflow.tracking import MlflowClient
        from sqlalchemy.exc import SQLAlchemyError

        for name in ("mlflow", "alembic"):
            logging.getLogger(name).setLevel(logging.ERROR)
        try:
            yield MlflowClient(tracking_uri=tracking_uri)
        except (
            MlflowException,
            SQLAlchemyError,
            OSError,
            ImportError,
        ) as error:  # ImportError: no driver of that database
            raise StoreError(f"{redact(tracking_uri)}: {redact(str(error)).splitlines()[0][:300]}") from None


def _sweep_id(run: Any) -> str:
    return run.data.tags.get(keys.SWEEP, "")


def _sweep_runs(client: Any) -> list[tuple[Any, str]]:
    """Every sweep's run with the name of its experiment (= space), newest first."""
    names: dict[str, str] = {}
    token = None
    while token != "":
        page = client.search_experiments(max_results=PAGE, page_token=token)
        names |= {experiment.experiment_id: experiment.name for experiment in page}
        token = page.token or ""
    runs = _search(client, list(names), keys.KIND, "sweep")
    runs.sort(key=lambda run: (run.info.start_time, run.info.run_id), reverse=True)
    return [(run, names[run.info.experiment_id]) for run in runs]


def _search(client: Any, experiments: list[str], tag: str, value: str, sweep: str = "") -> list[Any]:
    """All runs with that tag, page by page, oldest first."""
    if "'" in sweep:
        raise ValueError(f"sweep {sweep!r}: an id holds no quotation marks")
    query = f"tags.`{tag}` = '{value}'" + (f" and tags.`{keys.SWEEP}` = '{sweep}'" if sweep else "")
    runs: list[Any] = []
    token = None
    while token != "":
        page = client.search_runs(
            experiments, filter_string=query, max_results=PAGE, order_by=["attributes.start_time ASC"], page_token=token
        )
        runs += page
        token = page.token or ""
    return runs


def _manifest(client: Any, run: Any) -> Manifest:
    with tempfile.TemporaryDirectory() as folder:
        try:
            path = client.download_artifacts(run.info.run_id, keys.SWEEP_FILE, folder)
            return parse(json.loads(Path(path).read_text(encoding="utf-8")))
        except ValueError as error:
            raise StoreError(f"sweep {_sweep_id(run)!r}: {error}") from None


def _with_events(manifest: Manifest, run: Any) -> Manifest:
    """The manifest whose `reductions` also name what happened while the sweep ran."""
    tags, reductions = run.data.tags, list(manifest.reductions)
    if tags.get(keys.CURTAILED):
        reductions.append(f"--budget {tags[keys.CURTAILED]} ended the searches early")
    if tags.get(keys.EXTENDED):
        reductions.append(
            "searches resumed after a time budget had ended them and finals had been scored on the test split"
        )
    return replace(manifest, reductions=tuple(reductions))


def _seconds(runs: list[Any], epochs: pd.DataFrame) -> dict[str, tuple[float, int]]:
    """Training seconds and number of epochs of each run."""
    timed = epochs.dropna(subset="seconds").groupby("run_id")["seconds"].agg(["sum", "size"])
    spent = {str(run): (float(total), int(number)) for run, total, number in timed.itertuples()}
    return {run.info.run_id: spent.get(run.info.run_id, (0.0, 0)) for run in runs}


def _finals(runs: list[Any]) -> list[Any]:
    """The finals that are done."""
    return [run for run in runs if (run.data.tags.get(keys.PHASE), run.data.tags.get(keys.STATE)) == ("final", "DONE")]


def _is_ablated(manifest: Manifest, run: Any) -> bool:
    facts = manifest.methods.get(run.data.tags.get(keys.METHOD, ""))
    return facts is not None and facts.ablated and facts.removable


def _files(client: Any, runs: list[Any], name: str, parse: Callable[[str], Answer]) -> dict[str, Answer]:
    """An artifact of each run by the run's id; one that is missing or damaged is left out, and the report says so."""
    from mlflow.exceptions import MlflowException

    def one(run: Any) -> Answer | None:
        with tempfile.TemporaryDirectory() as folder:
            try:
                path = client.download_artifacts(run.info.run_id, name, folder)
                return parse(Path(path).read_text(encoding="utf-8"))
            except (MlflowException, OSError, ValueError) as error:
                log.info("no %s of run %s: %s", name, run.info.run_id, redact(str(error)).splitlines()[0][:200])
                return None

    with ThreadPoolExecutor(max_workers=4) as pool:
        found = zip(runs, pool.map(one, runs), strict=True)
        return {run.info.run_id: answer for run, answer in found if answer is not None}


def parse_predictions(text: str) -> Predictions:
    """Check and convert the JSON of a final's predictions; raises ValueError for anything else."""
    try:
        record = json.loads(text)
        predicted, labels = (np.asarray(record[name], dtype=float) for name in ("predictions", "labels"))
    except (KeyError, TypeError) as error:
        raise ValueError(f"{keys.PREDICTIONS_FILE}: {error!r}") from None
    if predicted.ndim != 1 or predicted.shape != labels.shape or not np.isfinite([predicted, labels]).all():
        raise ValueError(f"{keys.PREDICTIONS_FILE}: needs as many finite predictions as labels")
    return Predictions(predicted=predicted, labels=labels)


def parse_ablation(text: str) -> Ablation:
    """Check and convert the JSON of a final's ablation; raises ValueError for anything else."""
    try:
        found = Ablation.from_json(json.loads(text))
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{keys.ABLATION_FILE}: {error!r}") from None
    layers = len(found.spans)
    numbers = [found.whole, found.seconds, *(score for scores in found.spans for score in scores)]
    if (
        not layers
        or [len(scores) for scores in found.spans] != list(range(layers, 0, -1))
        or not np.isfinite(numbers).all()
    ):
        raise ValueError(f"{keys.ABLATION_FILE}: needs a finite score for every span of layers")
    return found


def _winners(cells: list[Any]) -> dict[str, str]:
    return {
        run.data.tags.get(keys.CELL, ""): run.data.tags[keys.WINNER] for run in cells if run.data.tags.get(keys.WINNER)
    }
