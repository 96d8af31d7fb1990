"""Reads one sweep from its MLflow tracking store into a `StoredSweep`. No other module of this package imports mlflow.

Nothing is written to the store. The names of tags, metrics and artifacts are defined in `search_spaces/keys.py`.
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
from reports.data.store_address import DamagedResults, StoreError
from reports.data.trial_table import PARAM, trial_table
from search_spaces import keys
from search_spaces.environment import changed, unless_set
from search_spaces.loading import nearest
from search_spaces.mlflow_loggers import set_up_mlflow_loggers
from search_spaces.records import Ablation, predictions_checksum
from search_spaces.redaction import clean_line, redact

Answer = TypeVar("Answer")
log = logging.getLogger(__name__)

PAGE = 1000
_QUIET = {  # few retries, so that a missing server is an error within seconds; no telemetry and no progress bars
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """Predictions of one final and the true labels of the n test examples, [n] each: class indices, or values in regression."""

    predicted: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True, kw_only=True, eq=False)  # compared and cached by identity
class StoredSweep:
    """All that the tracking store holds about one sweep.

    trials: one row per trial of a cell in the manifest; `reports/data/trial_table.py` lists the columns.
    epochs: one row per MLflow run and epoch; `reports.data.histories.epochs` lists the columns.
    winners: trial id of the winner by cell ("model/task/label") and number of the cell's search; those without one are missing.
    predictions: by MLflow run id of the final; finals without stored predictions are missing.
    ablations: validation scores with the method removed from spans of layers, by run id of the final, where stored.
    run_id: id of the sweep's own MLflow run.
    command: the command line that continues or repeats the sweep. It and `tracking_uri` have their credentials removed.
    curtailed: the time budget that ended the searches early ("40h"), "" if none did; `manifest.reductions` lists it, too.
    """

    manifest: Manifest
    trials: pd.DataFrame
    epochs: pd.DataFrame
    winners: Mapping[tuple[str, int], str]
    predictions: Mapping[str, Predictions]
    ablations: Mapping[str, Ablation]
    run_id: str
    command: str
    tracking_uri: str
    curtailed: str = ""


def find(tracking_uri: str, space: str = "", sweep: str = "") -> str:
    """Return the id of the sweep to report: `sweep` if given, else the newest sweep of `space`, else the newest of the store.

    Raises ValueError for an unknown space or sweep, with the most similar known names, and StoreError when the store cannot be
    read or contains no sweep.
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
    """Read the sweep with this id.

    Raises ValueError if the store has no such sweep, StoreError if it cannot be read, DamagedResults if predictions or ablations
    of a final are damaged, or a cell's winner is not the configuration of its finals.
    """
    with _client(tracking_uri) as client:
        runs = _sweep_runs(client)
        found = [run for run, _ in runs if run.data.tags.get(keys.SWEEP) == sweep]
        if not found:
            raise ValueError(
                f"sweep {sweep!r} is not in this store: {nearest(sweep, {_sweep_id(run) for run, _ in runs})}"
            )
        # A request that MLflow's client retried can have created two runs of one sweep; the sweep writes to the newest.
        run = found[0]
        manifest = _with_events(_manifest(client, run), run)
        experiments = [run.info.experiment_id]
        cells = _search(client, experiments, keys.KIND, "cell", sweep)
        trials = _search(client, experiments, keys.KIND, "trial", sweep)
        scores = [task.score for task in manifest.tasks.values()]
        epochs = histories.epochs(tracking_uri, client, trials, sweep, scores)
        finals = _finals(trials)
        predictions = _files(client, finals, keys.PREDICTIONS_FILE, parse_predictions)
        ablated = [run for run in finals if _is_ablated(manifest, run)]
        ablations = _files(client, ablated, keys.ABLATION_FILE, parse_ablation)
    table = trial_table(manifest, trials, _seconds(trials, epochs))
    winners = _winners(cells, manifest.budget.searches)
    _check_winners(table, winners)
    return StoredSweep(
        manifest=manifest,
        trials=table,
        epochs=epochs,
        winners=winners,
        predictions=predictions,
        ablations=ablations,
        run_id=run.info.run_id,
        command=redact(run.data.tags.get(keys.COMMAND) or manifest.command),
        tracking_uri=redact(tracking_uri),
        curtailed=run.data.tags.get(keys.CURTAILED, ""),
    )


@contextmanager
def _client(tracking_uri: str) -> Iterator[Any]:
    """Check the address and yield an MLflow client for it; errors of MLflow inside the block are raised as StoreError."""
    store_address.check(tracking_uri)
    with changed(unless_set(_QUIET)):
        # These imports take two seconds, so they are not at the top of the file: --help does not need them.
        from mlflow.exceptions import MlflowException
        from mlflow.tracking import MlflowClient
        from sqlalchemy.exc import SQLAlchemyError

        set_up_mlflow_loggers()
        try:
            yield MlflowClient(tracking_uri=tracking_uri)
        except (
            MlflowException,
            SQLAlchemyError,
            OSError,
            ImportError,
        ) as error:  # ImportError: the driver of the database is not installed
            raise StoreError(f"{redact(tracking_uri)}: {clean_line(error)[:300]}") from None


def _sweep_id(run: Any) -> str:
    return run.data.tags.get(keys.SWEEP, "")


def _sweep_runs(client: Any) -> list[tuple[Any, str]]:
    """Return (MLflow run, space) of every sweep in the store, newest first.

    The runs of earlier versions lack the tag with the space, which was then the name of the MLflow experiment.
    """
    names: dict[str, str] = {}
    token = None
    while token != "":
        page = client.search_experiments(max_results=PAGE, page_token=token)
        names |= {experiment.experiment_id: experiment.name for experiment in page}
        token = page.token or ""
    runs = _search(client, list(names), keys.KIND, "sweep")
    runs.sort(key=lambda run: (run.info.start_time, run.info.run_id), reverse=True)
    return [(run, run.data.tags.get(keys.SPACE) or names[run.info.experiment_id]) for run in runs]


def _search(client: Any, experiments: list[str], tag: str, value: str, sweep: str = "") -> list[Any]:
    """Return all runs whose `tag` has this value, oldest first, only those of `sweep` if given.

    Raises ValueError for a sweep id with a quotation mark, which would end the string in MLflow's filter.
    """
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
    """Download and parse the manifest of the sweep that has this run; raises StoreError if it is not valid."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            path = client.download_artifacts(run.info.run_id, keys.SWEEP_FILE, folder)
            return parse(json.loads(Path(path).read_text(encoding="utf-8")))
        except ValueError as error:
            raise StoreError(f"sweep {_sweep_id(run)!r}: {error}") from None


def _with_events(manifest: Manifest, run: Any) -> Manifest:
    """Return the manifest with up to two more `reductions`, the deviations from the full protocol that the report shows.

    One if a time budget ended the searches early, one if searches were resumed after finals had been scored.
    """
    tags, reductions = run.data.tags, list(manifest.reductions)
    if tags.get(keys.CURTAILED):
        reductions.append(f"--budget {tags[keys.CURTAILED]} ended the searches early")
    if tags.get(keys.EXTENDED):
        reductions.append(
            "searches resumed after a time budget had ended them and finals had been scored on the test split"
        )
    return replace(manifest, reductions=tuple(reductions))


def _seconds(runs: list[Any], epochs: pd.DataFrame) -> dict[str, tuple[float, int]]:
    """Return (training time in seconds, number of epochs with a recorded time) by run id."""
    timed = epochs.dropna(subset="seconds").groupby("run_id")["seconds"].agg(["sum", "size"])
    spent = {str(run): (float(total), int(number)) for run, total, number in timed.itertuples()}
    return {run.info.run_id: spent.get(run.info.run_id, (0.0, 0)) for run in runs}


def _finals(runs: list[Any]) -> list[Any]:
    """Return the runs of finals that ended with the state DONE."""
    return [run for run in runs if (run.data.tags.get(keys.PHASE), run.data.tags.get(keys.STATE)) == ("final", "DONE")]


def _is_ablated(manifest: Manifest, run: Any) -> bool:
    """Whether the run's method was to be removed from spans of layers after training, and can be."""
    facts = manifest.methods.get(run.data.tags.get(keys.METHOD, ""))
    return facts is not None and facts.ablated and facts.removable


def _files(client: Any, runs: list[Any], name: str, parse: Callable[[str], Answer]) -> dict[str, Answer]:
    """Download the artifact `name` of each run and return what `parse` makes of its text, by run id.

    Runs without this artifact are left out; the report mentions them. Raises DamagedResults if `parse` raises ValueError.
    """

    def one(run: Any) -> Answer | None:
        if name not in {file.path for file in client.list_artifacts(run.info.run_id)}:
            log.info("no %s of run %s", name, run.info.run_id)
            return None
        with tempfile.TemporaryDirectory() as folder:
            path = client.download_artifacts(run.info.run_id, name, folder)
            try:
                return parse(Path(path).read_text(encoding="utf-8"))
            except ValueError as error:
                tags = run.data.tags
                trial = tags.get(keys.TRIAL, "")
                source = f"predictions/{trial}.json" if name == keys.PREDICTIONS_FILE else "ledger.jsonl"
                raise DamagedResults(
                    f"the file {name} of the final {trial} of {tags.get(keys.CELL, '')} (MLflow run {run.info.run_id}) is "
                    f"damaged: {str(error)[:200]}. Put a backup of it back. If the sweep's folder still has a good {source}, "
                    "give the sweep's command another --tracking-uri, which it fills from there. Otherwise delete the damaged "
                    "files; the report then says what it lacks"
                ) from None

    with ThreadPoolExecutor(max_workers=4) as pool:
        found = zip(runs, pool.map(one, runs), strict=True)
        return {run.info.run_id: answer for run, answer in found if answer is not None}


def parse_predictions(text: str) -> Predictions:
    """Convert the JSON of a final's predictions; raises ValueError unless it has equally many finite predictions and labels.

    Also if they do not match their checksum; files of earlier versions have none.
    """
    try:
        record = json.loads(text)
        predicted, labels = (np.asarray(record[name], dtype=float) for name in ("predictions", "labels"))
        checksum = record.get("checksum")
        if checksum is not None and checksum != predictions_checksum(record["predictions"], record["labels"]):
            raise ValueError(f"{keys.PREDICTIONS_FILE}: its checksum does not match")
    except (AttributeError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{keys.PREDICTIONS_FILE}: {error!r}") from None
    if predicted.ndim != 1 or predicted.shape != labels.shape or not np.isfinite([predicted, labels]).all():
        raise ValueError(f"{keys.PREDICTIONS_FILE}: needs as many finite predictions as labels")
    return Predictions(predicted=predicted, labels=labels)


def parse_ablation(text: str) -> Ablation:
    """Convert the JSON of a final's ablation; raises ValueError unless every span of layers has a finite score."""
    try:
        found = Ablation.from_json(json.loads(text))
    except (KeyError, TypeError, AttributeError, RecursionError) as error:
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


def _winners(cells: list[Any], searches: int) -> dict[tuple[str, int], str]:
    """Return the winner's trial id by cell and number of its search, from the runs of the cells; without a winner left out."""
    found = {
        (run.data.tags.get(keys.CELL, ""), number): run.data.tags.get(keys.winner_of(number), "")
        for run in cells
        for number in range(searches)
    }
    return {key: trial for key, trial in found.items() if trial}


def _check_winners(trials: pd.DataFrame, winners: Mapping[tuple[str, int], str]) -> None:
    """Raise DamagedResults if all finals of a search train another configuration than that of its winner."""
    searched = [name for name in trials.columns if name.startswith(PARAM) and name != PARAM + "seed"]
    for (cell, search), winner in winners.items():
        of_search = trials[(trials["cell"] == cell) & (trials["search"] == search)]
        finals = of_search.loc[of_search["phase"] == "final", searched].fillna("").astype(str)
        won = of_search.loc[of_search["trial"] == winner, searched].fillna("").astype(str)
        if len(finals) and len(won) and not (finals == won.iloc[0]).all(axis=1).any():
            raise DamagedResults(
                f"{cell}: the winner on record, trial {winner}, has another configuration than the cell's finals; run the "
                "sweep's command again, which records the right one"
            )
