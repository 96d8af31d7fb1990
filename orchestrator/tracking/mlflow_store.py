"""One connection to an MLflow store: finds the runs of a sweep and applies edits to them, repeatably.

The only file of the orchestrator that imports mlflow. Everything here may raise whatever MLflow raises; the caller
then throws the connection away, makes a new one and applies the edits again.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from orchestrator.tracking.run_projection import KINDS, Edit, Key, RunUpdates
from search_spaces import keys
from search_spaces.environment import changed, unless_set

log = logging.getLogger(__name__)

PAGE = 1000
# MLflow's limits for one batch: 1000 entries in all, of which 100 params and 100 tags.
METRICS, PARAMS, TAGS = 800, 100, 100
PARAM_LENGTH, TAG_LENGTH, KEY_LENGTH = 6000, 8000, 250
# A repeated create_run is a second run; repetition is the tracker's business, which looks before it creates. So this
# holds against the user's environment too.
RETRIES = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}


@dataclass
class Known:
    """A run that exists in the store."""

    run_id: str
    status: str


class Store:
    """The runs of one sweep in a store. `position` is the number of records that it has taken, 0 for a new sweep.

    `artifacts` is where a sqlite store keeps the files of a new experiment; a server decides for itself.
    A store is used within `environment()`.
    """

    def __init__(self, uri: str, artifacts: Path | None, folder: Path, space: str, sweep: str):
        self._client = _client(uri)
        self._folder, self._sweep = folder, sweep
        location = artifacts.resolve().as_uri() if artifacts and uri.startswith("sqlite:") else None
        self._experiment = self._find_experiment(space, location)
        self.position = 0
        self.known = self._find_runs()

    def write(self, edits: Sequence[Edit], position: int) -> None:
        """Apply the edits, then note that the first `position` records are in the store."""
        for edit in edits:
            self._write(self._ensure(edit.run, edit.start), edit)
        self._client.set_tag(self.known[Key("sweep")].run_id, keys.POSITION, str(position))
        self.position = position
        if any(edit.run.key.kind == "sweep" and edit.status != "RUNNING" for edit in edits):
            # A request that was given up may still have been carried out since.
            self.known = self._find_runs()

    def _find_experiment(self, space: str, location: str | None) -> str:
        experiment = self._client.get_experiment_by_name(space)
        if experiment is None:
            return str(self._client.create_experiment(space, artifact_location=location))
        if experiment.lifecycle_stage == "deleted":
            log.info("the experiment %s had been deleted in MLflow and is restored", space)
            self._client.restore_experiment(experiment.experiment_id)
        return str(experiment.experiment_id)

    def _find_runs(self) -> dict[Key, Known]:
        """This sweep's runs by what they stand for; second ones are put aside."""
        found: dict[Key, list[Any]] = {}
        children: dict[str, int] = {}
        for run in self._search():
            tags = run.data.tags
            key = Key(tags.get(keys.KIND, ""), tags.get(keys.CELL, ""), tags.get(keys.TRIAL, ""))
            if key.kind in KINDS:
                found.setdefault(key, []).append(run)
            parent = tags.get(keys.PARENT, "")
            children[parent] = children.get(parent, 0) + 1

        def weight(run: Any) -> tuple[int, int, int, str]:
            entries = len(run.data.metrics) + len(run.data.params) + len(run.data.tags)
            return children.get(run.info.run_id, 0), entries, -run.info.start_time, run.info.run_id

        known = {}
        for key, runs in found.items():
            kept, *others = sorted(runs, key=weight, reverse=True)
            known[key] = Known(kept.info.run_id, kept.info.status)
            for other in others:
                self._put_aside(other)
            if key.kind == "sweep":
                self.position = int(kept.data.tags.get(keys.POSITION, 0))
        return known

    def _search(self) -> Iterator[Any]:
        token = None
        while token != "":
            query = f"tags.`{keys.SWEEP}` = '{self._sweep}'"
            page = self._client.search_runs([self._experiment], query, max_results=PAGE, page_token=token)
            yield from page
            token = page.token or ""

    def _put_aside(self, run: Any) -> None:
        """Tag a second run of the same trial so that a search for trials does not find it any more."""
        self._client.set_tag(run.info.run_id, keys.DUPLICATE, "true")
        self._client.set_terminated(run.info.run_id, "KILLED")
        self._client.set_tag(run.info.run_id, keys.KIND, "duplicate")

    def _ensure(self, run: RunUpdates, start: int) -> str:
        """Id of the run, created if it is not there yet."""
        if run.key not in self.known:
            tags = {key: value[:TAG_LENGTH] for key, value in run.tags.items()}
            if run.parent:
                tags[keys.PARENT] = self._ensure(run.parent, start)
            made = self._client.create_run(self._experiment, start_time=start, tags=tags, run_name=run.name)
            self.known[run.key] = Known(made.info.run_id, made.info.status)
        return self.known[run.key].run_id

    def _write(self, run_id: str, edit: Edit) -> None:
        from mlflow.entities import Metric, Param, RunTag

        metrics = [Metric(_key(p.key), p.value, p.time, p.step) for p in edit.points]
        params = [Param(_key(key), value[:PARAM_LENGTH]) for key, value in edit.params.items()]
        tags = [RunTag(key, value[:TAG_LENGTH]) for key, value in edit.tags.items()]
        while metrics or params or tags:
            self._client.log_batch(run_id, metrics[:METRICS], params[:PARAMS], tags[:TAGS], synchronous=True)
            metrics, params, tags = metrics[METRICS:], params[PARAMS:], tags[TAGS:]
        for name, content in edit.files.items():
            self._write_file(run_id, name, content)
        self._set_status(self.known[edit.run.key], edit.status, edit.end)

    def _write_file(self, run_id: str, name: str, content: str | PurePosixPath) -> None:
        if isinstance(content, PurePosixPath):
            try:
                content = (self._folder / content).read_text(encoding="utf-8")
            except FileNotFoundError as error:
                log.warning("an artifact of MLflow run %s is missing: %s", run_id, error)
                return
        try:
            self._client.log_text(run_id, content, name)
        except PermissionError as error:
            # A server without artifact proxy names a folder of its own machine: no later attempt would do better.
            log.warning("an artifact of MLflow run %s could not be stored: %s", run_id, error)

    def _set_status(self, known: Known, status: str, end: int) -> None:
        if not status or status == known.status:
            return
        if status == "RUNNING":
            self._client.update_run(known.run_id, status=status)
        else:
            self._client.set_terminated(known.run_id, status, end_time=end)
        known.status = status


def environment() -> AbstractContextManager[None]:
    """How MLflow's client behaves while a store is in use; afterwards the process's environment is as it was."""
    return changed({**RETRIES, **unless_set(ENVIRONMENT)})


def _client(uri: str) -> Any:
    # Takes more than a second, and a driver that prints its help should not wait for it.
    from mlflow.tracking import MlflowClient

    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.ERROR)
    return MlflowClient(tracking_uri=uri)


def _key(name: str) -> str:
    """The name of a metric or parameter in the characters that MLflow takes."""
    return re.sub(r"[^\w./ -]", "_", name, flags=re.ASCII)[:KEY_LENGTH]
