"""A connection to an MLflow store: finds the runs of a sweep and applies edits to them, which may be repeated safely.

This is the only file of the orchestrator that imports mlflow. Any exception of MLflow may be raised here; the caller then
makes a new connection and applies the edits again.
"""

from __future__ import annotations

import fcntl
import logging
import os
import re
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from sys import intern
from typing import Any, NamedTuple

from orchestrator.exit_codes import EnvironmentUnfit
from orchestrator.tracking.run_edits import KINDS, DatasetInput, Edit, Key, RunUpdates
from search_spaces import keys
from search_spaces.environment import changed, unless_set
from search_spaces.mlflow_loggers import set_up_mlflow_loggers
from search_spaces.redaction import clean_line
from search_spaces.tracking_uri import sqlite_path

log = logging.getLogger(__name__)

PAGE = 1000
# Held while a database is made: the library with which MLflow does that (alembic) has state that belongs to the process.
_MAKING = threading.Lock()
# MLflow's limits for one batch: 1000 entries in all, of which 100 params and 100 tags.
METRICS, PARAMS, TAGS = 800, 100, 100
PARAM_LENGTH, TAG_LENGTH, KEY_LENGTH = 6000, 8000, 250
# What SQLite and MLflow say about a file that is no database, or one whose tables are not complete.
_BROKEN = re.compile(
    "file is not a database|disk image is malformed|already exists|duplicate column name|no such (index|table|column)"
)
# MLflow's own retries are switched off, even if the user's environment sets them: a repeated create_run would make a second
# run. The tracker retries instead, and looks for the run before it creates one.
RETRIES = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}


@dataclass(slots=True)
class Known:
    """A run in the store: its id and its status there (MLflow's names).

    `metrics`: of a cell's run, the names of its metrics when it was looked for.
    """

    run_id: str
    status: str
    metrics: frozenset[str] = frozenset()


class _Found(NamedTuple):
    """What is kept of a run that MLflow has, which is large: its number of entries, its start, and the `position` it records."""

    known: Known
    entries: int
    start: int
    position: int

    @classmethod
    def of(cls, run: Any, kind: str) -> _Found:
        data, info = run.data, run.info
        metrics = frozenset(data.metrics) if kind == "cell" else frozenset()
        return cls(
            known=Known(info.run_id, intern(info.status), metrics),
            entries=len(data.metrics) + len(data.params) + len(data.tags),
            start=info.start_time,
            position=int(data.tags.get(keys.POSITION, 0)),
        )


class Store:
    """The runs of the sweep `sweep` in an MLflow store, in this experiment. Use it within `environment()`.

    `experiment` is the experiment's id, `sweep` the sweep's. `position` is the number of the ledger's records that have been
    written to the store, 0 for a new sweep. `artifacts` is the folder for files of a new experiment in a sqlite store; a server
    chooses its own. `folder` is the sweep's folder. `began` is the time of the ledger's first record, in milliseconds since
    1970. Raises EnvironmentUnfit if the store holds another sweep of this id, which began at another time.
    """

    def __init__(self, uri: str, artifacts: Path | None, folder: Path, experiment: str, sweep: str, began: int):
        self._client = connect(uri)
        self._folder, self.sweep, self._began = folder, sweep, began
        location = artifacts.resolve().as_uri() if artifacts and uri.startswith("sqlite:") else None
        self.experiment = self._find_experiment(experiment, location)
        self._context = _context_tags()
        self.position = 0
        self.known = self._find_runs()

    def write(self, edits: Sequence[Edit], position: int) -> None:
        """Apply the edits, then record in the store that it has the first `position` records of the ledger."""
        for edit in edits:
            self._write(self._ensure(edit.run, edit.start), edit)
        sweep = next((edit for edit in edits if edit.run.key.kind == "sweep"), None)
        self._log(self.known[Key("sweep")].run_id, sweep, {keys.POSITION: str(position)})
        self.position = position
        if sweep and sweep.status in ("FINISHED", "KILLED"):
            # Look for the runs again: a request that timed out here may have created a second run on the server.
            self.known = self._find_runs()

    def upload(self, run_id: str, folder: Path, place: str) -> None:
        """Store the files of a folder as artifacts of a run, in its folder `place`."""
        with _artifacts_of(run_id):
            self._client.log_artifacts(run_id, str(folder), place)

    def _find_experiment(self, name: str, location: str | None) -> str:
        experiment = self._client.get_experiment_by_name(name)
        if experiment is None:
            kind = {"mlflow.experimentKind": "custom_model_development"}  # the UI then shows what belongs to training
            return str(self._client.create_experiment(name, artifact_location=location, tags=kind))
        if experiment.lifecycle_stage == "deleted":
            log.info("the experiment %s had been deleted in MLflow and is restored", name)
            self._client.restore_experiment(experiment.experiment_id)
        return str(experiment.experiment_id)

    def _find_runs(self) -> dict[Key, Known]:
        """Return this sweep's runs by key, and read `position` from the sweep's run.

        If a key has several runs, the one with most children and entries is used and the others are marked as duplicates.
        """
        found: dict[Key, list[_Found]] = {}
        children: Counter[str] = Counter()
        for run in self._search():
            tags = run.data.tags
            key = Key(tags.get(keys.KIND, ""), intern(tags.get(keys.CELL, "")), tags.get(keys.TRIAL, ""))
            if key.kind == "sweep":
                self._check_same_sweep(run)
            if key.kind in KINDS:
                found.setdefault(key, []).append(_Found.of(run, key.kind))
            children[tags.get(keys.PARENT, "")] += 1

        known = {}
        for key, runs in found.items():
            weights = [(children[run.known.run_id], run.entries, -run.start, run.known.run_id) for run in runs]
            kept = runs[weights.index(max(weights))]
            known[key] = kept.known
            for other in runs:
                if other is not kept:
                    self._put_aside(other.known.run_id)
            if key.kind == "sweep":
                self.position = kept.position
        return known

    def _check_same_sweep(self, run: Any) -> None:
        """Raise EnvironmentUnfit unless the run is of the sweep whose ledger began at `began`.

        Ids without random digits, which an earlier version of this program gave, are shared by all sweeps of one space.
        """
        if run.info.start_time != self._began:
            theirs, ours = (
                datetime.fromtimestamp(time / 1000, UTC).isoformat(" ", "seconds")
                for time in (run.info.start_time, self._began)
            )
            raise EnvironmentUnfit(
                f"the tracking store holds another sweep with the id {self.sweep}: it began at {theirs}, the one in "
                f"{self._folder} at {ours}. Their results must not be mixed: give another store with --tracking-uri; it is "
                "filled from the ledger"
            )

    def _search(self) -> Iterator[Any]:
        token = None
        while token != "":
            query = f"tags.`{keys.SWEEP}` = '{self.sweep}'"
            page = self._client.search_runs([self.experiment], query, max_results=PAGE, page_token=token)
            yield from page
            token = page.token or ""

    def _put_aside(self, run_id: str) -> None:
        """Mark a second run with the same key as a duplicate, so that a search by kind does not find it any more."""
        self._client.set_tag(run_id, keys.DUPLICATE, "true")
        self._client.set_terminated(run_id, "KILLED")
        self._client.set_tag(run_id, keys.KIND, "duplicate")

    def _ensure(self, run: RunUpdates, start: int) -> str:
        """Return the MLflow id of the run. Creates it, and its parent, if it does not exist; `start` is in milliseconds."""
        if run.key not in self.known:
            tags = {key: value[:TAG_LENGTH] for key, value in {**self._context, **run.tags}.items()}
            if run.parent:
                tags[keys.PARENT] = self._ensure(run.parent, start)
            made = self._client.create_run(self.experiment, start_time=start, tags=tags, run_name=run.name)
            self.known[run.key] = Known(made.info.run_id, made.info.status)
        return self.known[run.key].run_id

    def _write(self, run_id: str, edit: Edit) -> None:
        if edit.inputs:
            self._client.log_inputs(run_id, [_dataset(each) for each in edit.inputs])
        if edit.run.key.kind != "sweep":  # those of the sweep's run are logged at the end, together with the position
            self._log(run_id, edit)
        for name, content in edit.files.items():
            self._write_file(run_id, name, content)
        self._set_status(self.known[edit.run.key], edit.status, edit.end)

    def _log(self, run_id: str, edit: Edit | None, last: Mapping[str, str] | None = None) -> None:
        """Log an edit's metrics, params and tags, and then the tags `last`, in as few requests as MLflow's limits allow."""
        from mlflow.entities import Metric, Param, RunTag

        metrics = [Metric(_key(p.key), p.value, p.time, p.step) for p in edit.points] if edit else []
        params = [Param(_key(key), value[:PARAM_LENGTH]) for key, value in edit.params.items()] if edit else []
        tags = [RunTag(key, value[:TAG_LENGTH]) for key, value in edit.tags.items()] if edit else []
        ending = [RunTag(key, value) for key, value in (last or {}).items()]
        while metrics or params or tags or ending:
            if len(metrics) <= METRICS and len(params) <= PARAMS and len(tags) + len(ending) <= TAGS:
                tags, ending = tags + ending, []
            # MLflow writes the tags of a request after its metrics and params.
            self._client.log_batch(run_id, metrics[:METRICS], params[:PARAMS], tags[:TAGS], synchronous=True)
            metrics, params, tags = metrics[METRICS:], params[PARAMS:], tags[TAGS:]

    def _write_file(self, run_id: str, name: str, content: str | PurePosixPath) -> None:
        if isinstance(content, PurePosixPath):
            try:
                content = (self._folder / content).read_text(encoding="utf-8")
            except FileNotFoundError as error:
                log.warning("an artifact of MLflow run %s is missing: %s", run_id, error)
                return
        with _artifacts_of(run_id):
            self._client.log_text(run_id, content, name)

    def _set_status(self, known: Known, status: str, end: int) -> None:
        if not status or status == known.status:
            return
        if status == "RUNNING":
            self._client.update_run(known.run_id, status=status)
        else:
            self._client.set_terminated(known.run_id, status, end_time=end)
        known.status = status


@contextmanager
def _artifacts_of(run_id: str) -> Iterator[None]:
    """Turn the error of a store that cannot take files into a warning.

    A server without an artifact proxy names a folder on its own machine, so a retry would fail as well.
    """
    try:
        yield
    except PermissionError as error:
        log.warning("an artifact of MLflow run %s could not be stored: %s", run_id, error)


def environment() -> AbstractContextManager[None]:
    """Return a context manager that sets the environment variables of MLflow's client, and restores them at the end."""
    return changed({**RETRIES, **unless_set(ENVIRONMENT)})


def refusal(error: Exception, uri: str) -> str:
    """Return why the store at `uri` will refuse again after this error, in one line; "" if a later attempt may succeed."""
    from mlflow.exceptions import MlflowException

    text = clean_line(error)
    if uri.startswith("http"):
        status = error.get_http_status_code() if isinstance(error, MlflowException) else 0
        if status in (401, 403):
            return (
                f"the server refuses access ({status}); set MLFLOW_TRACKING_TOKEN, or MLFLOW_TRACKING_USERNAME and "
                f"MLFLOW_TRACKING_PASSWORD, for a user who may write ({text[:200]})"
            )
        return ""
    if isinstance(error, ImportError):
        return f"the driver of the database is not installed ({text[:200]})"
    if re.search("database schema|Can't locate revision", text):
        return f"another version of MLflow made it: {text[:600]}"
    if uri.startswith("sqlite:") and re.search(_BROKEN, text):
        return (
            f"it is damaged, or was not made to its end ({text[:200]}); move the file away, and the same command fills a new "
            "one from the ledger"
        )
    return ""


def machine_monitor(uri: str, run_id: str) -> Any:
    """Return MLflow's monitor of this machine, which goes on after the values that the run has; call its `start` and `finish`."""
    from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

    return SystemMetricsMonitor(run_id, resume_logging=True, tracking_uri=uri)


def connect(uri: str) -> Any:
    """Return a client of MLflow for the store at this address; a database that is not there is made."""
    # Imported here because it takes more than a second, for which printing the help should not wait.
    from mlflow.tracking import MlflowClient

    set_up_mlflow_loggers()
    if uri.startswith("sqlite:") and "?" not in uri:
        _make_database(sqlite_path(uri))
    return MlflowClient(tracking_uri=uri)


def _context_tags() -> dict[str, str]:
    """Return the tags that MLflow's client gives to every run, such as its user, without those about the source.

    The source that MLflow would name is the program's own file.
    """
    from mlflow.tracking.context.git_context import GitRunContext
    from mlflow.tracking.context.registry import resolve_tags

    left_out: Any = [GitRunContext]  # MLflow means the class, though its annotation says an instance
    return {key: value for key, value in resolve_tags(ignore=left_out).items() if ".source." not in key}


def _dataset(found: DatasetInput) -> Any:
    from mlflow.entities import Dataset, InputTag
    from mlflow.entities import DatasetInput as Input

    dataset = Dataset(found.name[:KEY_LENGTH], found.digest, "task", found.source, profile=found.profile)
    return Input(dataset, [InputTag("mlflow.data.context", found.context)])


def _make_database(path: Path) -> None:
    """Make MLflow's database at `path` unless there is one.

    It is made under another name and renamed when it is complete: MLflow makes its tables in about 60 steps, and cannot open
    a database in which some of them are missing. A lock file keeps two sweeps from making it at the same time; the kernel
    releases the lock when a process ends.
    """
    from mlflow.store.tracking import DEFAULT_LOCAL_FILE_AND_ARTIFACT_PATH
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    if path.exists() and path.stat().st_size:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with _MAKING, path.with_name(path.name + ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if path.exists() and path.stat().st_size:
            return
        unfinished = path.with_name(path.name + ".unfinished")
        for leftover in (unfinished, unfinished.with_name(unfinished.name + "-journal")):
            leftover.unlink(missing_ok=True)
        store = SqlAlchemyStore(f"sqlite:///{unfinished}", DEFAULT_LOCAL_FILE_AND_ARTIFACT_PATH)
        store.engine.dispose()
        os.replace(unfinished, path)


def _key(name: str) -> str:
    """Return the name of a metric or parameter with characters that MLflow does not allow replaced by "_"."""
    return re.sub(r"[^\w./ -]", "_", name, flags=re.ASCII)[:KEY_LENGTH]
