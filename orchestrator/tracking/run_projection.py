"""Translates the records of a ledger into MLflow runs and changes to them.

The result depends on the records alone, so that replaying them gives the same runs. The names are those of
`search_spaces/keys.py`. MLflow itself is not used here.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any, NamedTuple

from search_spaces import keys
from search_spaces.events import (
    CheckpointMeasured,
    EpochReported,
    LedgerRecord,
    SearchesEndedEarly,
    SearchesResumed,
    SweepFinished,
    SweepInterrupted,
    SweepOpened,
    TrialAsked,
    TrialEnded,
    TrialStarted,
    WinnerChosen,
)
from search_spaces.language import Cell
from search_spaces.records import Outcome, SearchKey, Trial
from search_spaces.redaction import clean_line, redact

KINDS = ("sweep", "cell", "trial")


class Key(NamedTuple):
    """Identifies a run by its tags. `kind` is one of KINDS, `cell` is "model/task/label" and `trial` a trial id.

    `cell` is empty for the sweep's run, `trial` for those of the sweep and the cells.
    """

    kind: str
    cell: str = ""
    trial: str = ""


@dataclass(frozen=True, kw_only=True)
class RunUpdates:
    """A run with the name, tags, parameters and parent that it is created with."""

    key: Key
    name: str
    tags: Mapping[str, str]
    params: Mapping[str, str] = field(default_factory=dict)
    parent: RunUpdates | None = None


@dataclass(frozen=True, kw_only=True)
class Point:
    """A value of a metric. `time` is the record's, in milliseconds, so that MLflow stores a repeated point only once."""

    key: str
    value: float
    time: int
    step: int


@dataclass(kw_only=True)
class Edit:
    """The changes of one run by a batch of records. `start` and `end` of the run are in milliseconds since 1970.

    `files` maps an artifact's name to its text or to a path relative to the sweep's folder. `status` is an MLflow run status, ""
    for no change.
    """

    run: RunUpdates
    start: int
    points: list[Point] = field(default_factory=list)
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    files: dict[str, str | PurePosixPath] = field(default_factory=dict)
    status: str = ""
    end: int = 0


class RunProjection:
    """The MLflow runs that follow from the records applied so far. `take` returns the changes since its last call."""

    def __init__(self) -> None:
        self.born: dict[Key, RunUpdates] = {}
        self._sweep: RunUpdates | None = None
        # For each driver of the sweep: the commit of its code, and whether files differed from that commit.
        self._code: list[tuple[str, bool]] = []
        self._trials: dict[str, RunUpdates] = {}
        # Standard deviations of the train targets, by regression task.
        self._target_stds: dict[str, float] = {}
        self._open: set[Key] = set()
        self._extended: set[SearchKey] = set()
        self._edits: dict[Key, Edit] = {}
        self._now = 0

    def apply(self, record: LedgerRecord) -> None:
        """Apply the next record."""
        self._now = round(record.time * 1000)
        apply = _APPLY.get(type(record.event))
        if apply:
            apply(self, record.event)

    def take(self) -> list[Edit]:
        """Return the changes since the last call, one edit per run, parents before children."""
        edits, self._edits = self._edits, {}
        return sorted(edits.values(), key=lambda edit: KINDS.index(edit.run.key.kind))

    def _open_sweep(self, event: SweepOpened) -> None:
        manifest = event.manifest
        command = redact(manifest.get("command", ""))
        tags = {
            keys.KIND: "sweep",
            keys.SWEEP: manifest["sweep"],
            keys.STAMP: ", ".join(manifest.get("stamp", ())),
            keys.COMMAND: command,
        }
        targets = {name: task.get("targets") for name, task in manifest.get("tasks", {}).items()}
        self._target_stds = {name: found["std"] for name, found in targets.items() if found}
        self._sweep = RunUpdates(key=Key("sweep"), name=manifest["sweep"], tags=tags)
        edit = self._edit(self._sweep)
        edit.tags.update(tags)
        self._code.append((manifest.get("commit", ""), manifest.get("dirty", False)))
        earlier = [code for code in dict.fromkeys(self._code) if code != self._code[-1]]
        told = {**manifest, "command": command, "earlier_code": earlier}
        edit.files[keys.SWEEP_FILE] = json.dumps(told, indent=1, sort_keys=True)
        self._close("sweep", "cell", status="RUNNING")

    def _ask(self, event: TrialAsked) -> None:
        """Prepare the run of a trial. It is created in MLflow only when a later event changes it."""
        self._trials[event.id] = self._trial_run(event.trial, event.id)

    def _start(self, event: TrialStarted) -> None:
        edit = self._trial_edit(event.id)
        edit.tags[keys.STATE] = "RUNNING"
        edit.status = "RUNNING"
        self._open.add(edit.run.key)

    def _report(self, event: EpochReported) -> None:
        progress = event.progress
        values = {
            keys.SCORE: progress.score,
            keys.LOSS: progress.loss,
            keys.SECONDS: progress.seconds,
            keys.MEMORY: progress.memory_mib,
        }
        edit = self._trial_edit(event.id)
        std = self._target_stds.get(edit.run.tags[keys.TASK])
        if std is not None and progress.loss is not None:
            values[keys.TARGET_LOSS] = progress.loss * std**2
        self._log(edit, {key: value for key, value in values.items() if value is not None}, step=progress.epoch)

    def _end(self, event: TrialEnded) -> None:
        outcome = event.outcome
        edit = self._trial_edit(event.id)
        edit.tags |= {
            keys.STATE: outcome.state,
            keys.REASON: clean_line(outcome.reason),
            keys.CACHED: _text(event.cached),
            keys.COLLAPSED: _text(outcome.collapsed),
            keys.DIVERGED: _text(outcome.diverged),
        }
        self._log(edit, _final_values(outcome), step=0)
        if outcome.predictions:
            edit.files[keys.PREDICTIONS_FILE] = PurePosixPath(outcome.predictions)
        if outcome.ablation:
            edit.files[keys.ABLATION_FILE] = json.dumps(outcome.ablation.to_json())
        edit.status = "FINISHED" if outcome.state in ("DONE", "STOPPED") else "FAILED"
        edit.end = self._now
        self._open.discard(edit.run.key)

    def _measure(self, event: CheckpointMeasured) -> None:
        values = {keys.SAVED_BYTES: event.bytes, keys.CHECKPOINT_ELEMENTS: event.stored}
        self._log(self._trial_edit(event.id), values, step=0)

    def _choose_winner(self, event: WinnerChosen) -> None:
        cell, winner = event.cell, self._trials[event.id]
        search = _search_of(winner)
        self._edit(self._cell_run(cell)).tags[keys.winner_of(search)] = event.id
        if (cell, search) in self._extended:
            for run in self._finals(cell, search):
                same = {**run.params, "seed": ""} == {**winner.params, "seed": ""}
                self._edit(run).tags[keys.PHASE] = "final" if same else "replaced"

    def _end_searches_early(self, event: SearchesEndedEarly) -> None:
        self._edit_sweep().tags[keys.CURTAILED] = event.budget

    def _resume_searches(self, event: SearchesResumed) -> None:
        self._edit_sweep().tags |= {keys.CURTAILED: "", keys.EXTENDED: "true"}
        for cell, search in event.search_keys:
            self._extended.add((cell, search))
            self._edit(self._cell_run(cell)).tags[keys.winner_of(search)] = ""
            for run in self._finals(cell, search):
                self._edit(run).tags[keys.PHASE] = "replaced"

    def _finals(self, cell: Cell, search: int) -> list[RunUpdates]:
        runs = (run for run in self._trials.values() if run.key.cell == str(cell) and run.key in self.born)
        return [run for run in runs if run.tags[keys.PHASE] == "final" and _search_of(run) == search]

    def _interrupt(self, event: SweepInterrupted) -> None:
        """Set the runs to KILLED, since trials end soon after an interruption. A trial that is continued uses the same run."""
        self._close("sweep", "cell", "trial", status="KILLED")

    def _finish(self, event: SweepFinished) -> None:
        self._close("trial", status="KILLED")
        self._close("sweep", "cell", status="FINISHED")

    def _close(self, *kinds: str, status: str) -> None:
        """Set the status and end time of all runs of these kinds; of the trials' runs, only if the trial has not ended."""
        for key, run in self.born.items():
            if key.kind in kinds and (key.kind != "trial" or key in self._open):
                edit = self._edit(run)
                edit.status, edit.end = status, self._now

    def _edit(self, run: RunUpdates) -> Edit:
        """Return the pending edit of this run. The first edit of a run contains its parameters; its parent gets one before it."""
        if run.key not in self._edits:
            self._edits[run.key] = Edit(run=run, start=self._now)
        edit = self._edits[run.key]
        if run.key not in self.born:
            if run.parent:
                self._edit(run.parent)
            self.born[run.key] = run
            edit.params.update(run.params)
        return edit

    def _trial_edit(self, trial_id: str) -> Edit:
        run = self._trials[trial_id]
        if run.key not in self.born:
            self._open.add(run.key)
        return self._edit(run)

    def _log(self, edit: Edit, values: Mapping[str, float], step: int) -> None:
        edit.points += [Point(key=key, value=value, time=self._now, step=step) for key, value in values.items()]

    def _edit_sweep(self) -> Edit:
        assert self._sweep, "a ledger starts with the sweep's record"
        return self._edit(self._sweep)

    def _cell_run(self, cell: Cell) -> RunUpdates:
        key = Key("cell", str(cell))
        if key in self.born:
            return self.born[key]
        assert self._sweep, "a ledger starts with the sweep's record"
        return RunUpdates(key=key, name=str(cell), tags=self._cell_tags(cell, "cell"), parent=self._sweep)

    def _trial_run(self, trial: Trial, trial_id: str) -> RunUpdates:
        tags = {keys.TRIAL: trial_id, keys.PHASE: trial.phase, keys.STATE: "RUNNING"}
        if trial.search:
            tags[keys.SEARCH] = str(trial.search)
        return RunUpdates(
            key=Key("trial", str(trial.cell), trial_id),
            name=f"{trial.cell.method} lr={trial.lr:g} b={trial.batch_size} seed {trial.seed}"
            + (f" search {trial.search + 1}" if trial.search else ""),
            tags=self._cell_tags(trial.cell, "trial") | tags,
            params={key: _text(value) for key, value in {**trial.hyperparameters, "seed": trial.seed}.items()},
            parent=self._cell_run(trial.cell),
        )

    def _cell_tags(self, cell: Cell, kind: str) -> dict[str, str]:
        assert self._sweep, "a ledger starts with the sweep's record"
        return {
            keys.KIND: kind,
            keys.SWEEP: self._sweep.tags[keys.SWEEP],
            keys.CELL: str(cell),
            keys.MODEL: cell.model,
            keys.TASK: cell.task,
            keys.METHOD: cell.method,
        }


# Other events, such as the number of trials that share a device, do not affect results and are not written to MLflow.
_APPLY: Mapping[type, Callable[[RunProjection, Any], None]] = {
    SweepOpened: RunProjection._open_sweep,
    TrialAsked: RunProjection._ask,
    TrialStarted: RunProjection._start,
    EpochReported: RunProjection._report,
    TrialEnded: RunProjection._end,
    CheckpointMeasured: RunProjection._measure,
    WinnerChosen: RunProjection._choose_winner,
    SearchesEndedEarly: RunProjection._end_searches_early,
    SearchesResumed: RunProjection._resume_searches,
    SweepInterrupted: RunProjection._interrupt,
    SweepFinished: RunProjection._finish,
}


def _final_values(outcome: Outcome) -> dict[str, float]:
    values: dict[str, float] = {keys.EPOCHS: outcome.epochs}
    if outcome.state in ("DONE", "STOPPED") and outcome.best_epoch:  # without a best epoch, the score is none
        values |= {keys.BEST_SCORE: outcome.best_score, keys.BEST_EPOCH: outcome.best_epoch}
    if outcome.counts:
        values |= {keys.COUNTS + name: number for name, number in outcome.counts.to_json().items()}
    return values | {keys.TEST + name: value for name, value in outcome.metrics.items()}


def _search_of(run: RunUpdates) -> int:
    return int(run.tags.get(keys.SEARCH, 0))


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
