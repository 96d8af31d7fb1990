"""Translates the records of a ledger into MLflow runs and changes to them.

The result depends on the records alone, so that replaying them gives the same runs. The names are those of
`search_spaces/keys.py`. MLflow itself is not used here.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from math import inf, prod
from pathlib import PurePosixPath
from sys import intern
from typing import Any

from orchestrator.tracking.run_edits import KINDS, DatasetInput, Edit, Key, Point, RunUpdates
from search_spaces import keys, quantization
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
from search_spaces.peft_rows import PEFT
from search_spaces.records import Outcome, SearchKey, State, Trial
from search_spaces.redaction import clean_line, redact

# MLflow's status of a trial that ended in this state. Trials that ASHA or a time budget stopped are KILLED, which the UI shows.
_STATUS: Mapping[State, str] = {"DONE": "FINISHED", "STOPPED": "KILLED"}


# A sweep with more cells than this has no metrics of single cells on its own run, where the UI draws one chart for each.
MOST_CELLS = 60


def cell_metric(split: str, cell: Cell, num_models: int, num_tasks: int) -> str:
    """Return the name of the metric of the sweep's run that is the score of a cell; `split` is a prefix of `keys`.

    The model and the task are left out where the sweep has one only: the UI cuts long names at their end.
    """
    task = f"{cell.task}/" if num_tasks > 1 else ""
    return split + task + (f"{cell.model}/" if num_models > 1 else "") + cell.method


class RunProjection:
    """The MLflow runs that follow from the records applied so far. `take` returns the changes since its last call."""

    def __init__(self) -> None:
        # The runs that were changed so far; those of trials are made anew when they are needed again, since there may be many.
        self.born: dict[Key, RunUpdates | None] = {}
        self._sweep: RunUpdates | None = None
        # For each driver of the sweep: the commit of its code, and whether files differed from that commit.
        self._code: list[tuple[str, bool]] = []
        self._trials: dict[str, Trial] = {}
        # The manifest's facts about each task.
        self._tasks: Mapping[str, Mapping[str, Any]] = {}
        # Searches of each cell, cells, and models.
        self._num_searches = self._num_cells = self._num_models = 1
        # Tags that say which code made a run.
        self._source: dict[str, str] = {}
        # For each search: its trials that ended, and the best validation score among those that are DONE.
        self._searched: dict[SearchKey, set[str]] = {}
        self._best: dict[SearchKey, float] = {}
        self._winners: dict[SearchKey, Trial] = {}
        self._curtailed = False
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
        self._source = _source(manifest)
        tags = {
            keys.KIND: "sweep",
            keys.SWEEP: manifest["sweep"],
            keys.SPACE: manifest.get("space", ""),
            keys.STAMP: ", ".join(manifest.get("stamp", ())),
            keys.COMMAND: command,
            **self._source,
        }
        self._tasks = manifest.get("tasks", {})
        self._num_searches = manifest.get("budget", {}).get("searches", 1)
        self._num_models = len(manifest.get("models", ()))
        self._num_cells = prod(len(manifest.get(part, ())) for part in ("models", "tasks", "methods"))
        inputs = tuple(self._input(task, facts.get("split", ""), final=True) for task, facts in self._tasks.items())
        self._sweep = RunUpdates(
            key=Key("sweep"), name=manifest["sweep"], tags=tags, params=_sweep_params(manifest), inputs=inputs
        )
        edit = self._edit(self._sweep)
        edit.tags.update(tags)
        self._code.append((manifest.get("commit", ""), manifest.get("dirty", False)))
        earlier = [code for code in dict.fromkeys(self._code) if code != self._code[-1]]
        told = {**manifest, "command": command, "earlier_code": earlier}
        edit.files[keys.SWEEP_FILE] = json.dumps(told, indent=1, sort_keys=True)
        if manifest.get("space_file"):
            edit.files[manifest["space_file"]] = PurePosixPath(manifest["space_file"])
        self._close("sweep", "cell", status="RUNNING")

    def _ask(self, event: TrialAsked) -> None:
        """Prepare the run of a trial. It is created in MLflow only when a later event changes it."""
        self._trials[event.id] = event.trial

    def _start(self, event: TrialStarted) -> None:
        edit = self._trial_edit(event.id)
        edit.tags[keys.STATE] = "RUNNING"
        edit.status = "RUNNING"
        self._open.add(edit.run.key)

    def _report(self, event: EpochReported) -> None:
        progress = event.progress
        edit = self._trial_edit(event.id)
        task = self._trials[event.id].cell.task
        values = {
            keys.VALIDATION + self._score(task): progress.score,
            keys.LOSS: progress.loss,
            keys.LEARNING_RATE: progress.lr,
            keys.SECONDS: progress.seconds,
            keys.MEMORY: progress.memory_mib,
        }
        targets = self._tasks.get(task, {}).get("targets")
        if targets and progress.loss is not None:
            values[keys.TARGET_LOSS] = progress.loss * targets["std"] ** 2
        self._log(edit, {key: value for key, value in values.items() if value is not None}, step=progress.epoch)

    def _end(self, event: TrialEnded) -> None:
        outcome, trial = event.outcome, self._trials[event.id]
        edit = self._trial_edit(event.id)
        edit.tags |= {
            keys.STATE: outcome.state,
            keys.REASON: clean_line(outcome.reason),
            keys.CACHED: _text(event.cached),
            keys.COLLAPSED: _text(outcome.collapsed),
            keys.DIVERGED: _text(outcome.diverged),
        }
        self._log(edit, _final_values(outcome, self._score(trial.cell.task)), step=0)
        if trial.phase == "search":
            self._log_search(event.id, trial.search_key, outcome)
        if outcome.predictions:
            edit.files[keys.PREDICTIONS_FILE] = PurePosixPath(outcome.predictions)
        if outcome.ablation:
            edit.files[keys.ABLATION_FILE] = json.dumps(outcome.ablation.to_json())
        edit.status = _STATUS.get(outcome.state, "FAILED")
        edit.end = self._now
        self._open.discard(edit.run.key)

    def _log_search(self, trial_id: str, key: SearchKey, outcome: Outcome) -> None:
        """Log the validation score of a trial that is the best of its search so far, at the number of trials that ended."""
        cell, search = key
        ended = self._searched.setdefault(key, set())
        ended.add(trial_id)
        done = outcome.state == "DONE" and outcome.best_epoch > 0
        if not done or outcome.best_score <= self._best.get(key, -inf):
            return
        self._best[key] = outcome.best_score
        name = keys.best(self._score(cell.task), search)
        self._log(self._edit(self._cell_run(cell)), {name: outcome.best_score}, step=len(ended))
        if not search and self._num_cells <= MOST_CELLS:
            name = cell_metric(keys.VALIDATION, cell, self._num_models, len(self._tasks))
            self._log(self._edit_sweep(), {name: outcome.best_score}, step=len(ended))

    def _measure(self, event: CheckpointMeasured) -> None:
        values = {keys.SAVED_BYTES: event.bytes, keys.CHECKPOINT_ELEMENTS: event.stored}
        self._log(self._trial_edit(event.id), values, step=0)

    def _choose_winner(self, event: WinnerChosen) -> None:
        cell, winner = event.cell, self._trials[event.id]
        search = winner.search
        self._winners[cell, search] = winner
        self._edit(self._cell_run(cell)).tags[keys.winner_of(search)] = event.id
        if (cell, search) in self._extended:
            for trial_id in self._finals(cell, search):
                same = _configuration(self._trials[trial_id]) == _configuration(winner)
                self._trial_edit(trial_id).tags[keys.PHASE] = "final" if same else "replaced"

    def _end_searches_early(self, event: SearchesEndedEarly) -> None:
        self._curtailed = True
        self._edit_sweep().tags[keys.CURTAILED] = event.budget

    def _resume_searches(self, event: SearchesResumed) -> None:
        self._curtailed = False
        self._edit_sweep().tags |= {keys.CURTAILED: "", keys.EXTENDED: "true"}
        for cell, search in event.search_keys:
            self._extended.add((cell, search))
            self._edit(self._cell_run(cell)).tags[keys.winner_of(search)] = ""
            for trial_id in self._finals(cell, search):
                self._trial_edit(trial_id).tags[keys.PHASE] = "replaced"

    def _finals(self, cell: Cell, search: int) -> list[str]:
        """Return the ids of the finals of a search that have a run."""
        finals = (
            trial_id
            for trial_id, trial in self._trials.items()
            if trial.phase == "final" and trial.search_key == (cell, search)
        )
        return [trial_id for trial_id in finals if self._trial_key(trial_id) in self.born]

    def _interrupt(self, event: SweepInterrupted) -> None:
        """Set the runs to KILLED, since trials end soon after an interruption. A trial that is continued uses the same run."""
        self._close("sweep", "cell", "trial", status="KILLED")

    def _finish(self, event: SweepFinished) -> None:
        self._close("trial", status="KILLED")
        self._close("sweep", "cell", status="FINISHED")
        # MLflow cannot change params: no winner may be written that a larger time budget could still replace.
        if not self._curtailed:
            for cell in dict.fromkeys(cell for cell, _ in self._winners):
                self._edit(self._cell_run(cell)).params.update(self._winning_params(cell))

    def _winning_params(self, cell: Cell) -> dict[str, str]:
        """Return the hyperparameters of a cell's winner; where its searches have different ones, all in their order."""
        numbers = sorted(search for of, search in self._winners if of == cell)
        found = [_configuration(self._winners[cell, search]) for search in numbers]
        together = {name: [each.get(name, "") for each in found] for name in found[0]}
        return {name: " | ".join(values if len(set(values)) > 1 else values[:1]) for name, values in together.items()}

    def _close(self, *kinds: str, status: str) -> None:
        """Set the status and end time of all runs of these kinds; of the trials' runs, only if the trial has not ended."""
        for key, run in self.born.items():
            if key.kind in kinds and (run or key in self._open):
                edit = self._edit(run) if run else self._trial_edit(key.trial)
                edit.status, edit.end = status, self._now

    def _edit(self, run: RunUpdates) -> Edit:
        """Return the pending edit of this run. The first edit of a run contains its parameters; its parent gets one before it."""
        if run.key not in self._edits:
            self._edits[run.key] = Edit(run=run, start=self._now)
        edit = self._edits[run.key]
        if run.key not in self.born:
            if run.parent:
                self._edit(run.parent)
            self.born[run.key] = run if run.key.kind != "trial" else None
            edit.params.update(run.params)
            edit.inputs = run.inputs
        return edit

    def _trial_key(self, trial_id: str) -> Key:
        return Key("trial", intern(str(self._trials[trial_id].cell)), trial_id)

    def _trial_edit(self, trial_id: str) -> Edit:
        key = self._trial_key(trial_id)
        if key not in self.born:
            self._open.add(key)
        return self._edits.get(key) or self._edit(self._trial_run(self._trials[trial_id], key))

    def _log(self, edit: Edit, values: Mapping[str, float], step: int) -> None:
        edit.points += [Point(key=key, value=value, time=self._now, step=step) for key, value in values.items()]

    def _edit_sweep(self) -> Edit:
        assert self._sweep, "a ledger starts with the sweep's record"
        return self._edit(self._sweep)

    def _cell_run(self, cell: Cell) -> RunUpdates:
        key = Key("cell", str(cell))
        if known := self.born.get(key):
            return known
        assert self._sweep, "a ledger starts with the sweep's record"
        inputs = (self._input(cell.task, self._tasks.get(cell.task, {}).get("split", ""), final=True),)
        return RunUpdates(
            key=key,
            name=str(cell),
            tags=self._cell_tags(cell, "cell"),
            params=dict(vars(cell)),
            inputs=inputs,
            parent=self._sweep,
        )

    def _trial_run(self, trial: Trial, key: Key) -> RunUpdates:
        tags = {keys.TRIAL: key.trial, keys.PHASE: trial.phase, keys.STATE: "RUNNING"}
        if trial.method == PEFT:
            library = next((each for each in trial.plugin.split(", ") if each.startswith(f"{PEFT} ")), PEFT)
            tags[keys.TRAINED_BY] = f"{library}, alone"
        place = {**vars(trial.cell), "phase": trial.phase}
        if trial.search:
            tags[keys.SEARCH] = str(trial.search)
        if self._num_searches > 1:
            place["search"] = str(trial.search + 1)
        return RunUpdates(
            key=key,
            name=f"{trial.cell.method} lr={trial.lr:g} b={trial.batch_size} seed {trial.seed}"
            + (f" search {trial.search + 1}" if trial.search else ""),
            tags=self._cell_tags(trial.cell, "trial") | tags,
            params={key: _text(value) for key, value in {**place, **trial.hyperparameters, "seed": trial.seed}.items()},
            inputs=(self._input(trial.cell.task, trial.split, final=trial.phase == "final"),),
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
            **self._source,
        }

    def _score(self, task: str) -> str:
        """Return the name of the metric that is this task's score."""
        return str(self._tasks.get(task, {}).get("score", "score"))

    def _input(self, task: str, split: str, final: bool) -> DatasetInput:
        facts = self._tasks.get(task, {})
        parts = ("train", "validation", "test") if final else ("train", "validation")
        source = {"task": task, "test split": facts.get("test_source", "")}
        return DatasetInput(
            name=task,
            digest=split or "unknown",
            source=json.dumps(source),
            profile=json.dumps({part: facts[part] for part in parts if part in facts}),
            context=", ".join(parts),
        )


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


def _final_values(outcome: Outcome, score: str) -> dict[str, float]:
    """Return the metrics that are written when a trial ends. `score` is the name of the task's score."""
    values: dict[str, float] = {keys.EPOCHS: outcome.epochs}
    if outcome.state in ("DONE", "STOPPED") and outcome.best_epoch:  # without a best epoch, the score is none
        values |= {keys.best(score): outcome.best_score, keys.BEST_EPOCH: outcome.best_epoch}
    if outcome.counts:
        values |= {keys.COUNTS + name: number for name, number in outcome.counts.to_json().items()}
    return values | {keys.TEST + name: value for name, value in outcome.metrics.items()}


def _source(manifest: Mapping[str, Any]) -> dict[str, str]:
    """Return MLflow's tags for the source of a run: the space file, and the commit of this project's code."""
    commit = {"mlflow.source.git.commit": manifest["commit"]} if manifest.get("commit") else {}
    dirty = {"mlflow.source.git.dirty": "true"} if manifest.get("dirty") else {}
    name = manifest.get("space_file") or manifest.get("space", "")
    return {"mlflow.source.name": name, "mlflow.source.type": "LOCAL", **commit, **dirty}


def _sweep_params(manifest: Mapping[str, Any]) -> dict[str, str]:
    """Return what a sweep varies and spends, from those parts of the manifest that stay the same when it is continued."""
    lists = {part: ", ".join(manifest.get(part, ())) for part in ("models", "tasks", "methods")}
    numbers = {**manifest.get("budget", {}), **manifest.get("recipe", {}), "seed": manifest.get("seed")}
    kept = ("trials", "search_seeds", "searches", "final_seeds", "epochs", "precision", *quantization.FIELDS, "seed")
    return lists | {name: _text(numbers[name]) for name in kept if numbers.get(name) is not None}


def _configuration(trial: Trial) -> dict[str, str]:
    return {name: _text(value) for name, value in trial.hyperparameters.items()}


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
