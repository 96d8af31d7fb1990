"""Writes the searches of a sweep as Optuna studies into a file that `optuna-dashboard` and `optuna.load_study` open.

The file is a copy for readers: it is made anew from the cells whenever a driver ends, and no driver reads it.
"""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from orchestrator.search.cell import CellSearch, TrialEntry, aggregate_seeds
from orchestrator.search.sampler import STATES, distributions
from search_spaces.events import LedgerRecord, TrialAsked, TrialEnded

# Optuna's journal format: one JSON object a line.
FILE = "optuna-journal.log"


def write_studies(
    path: Path, searches: Iterable[CellSearch], records: Iterable[LedgerRecord], scores: Mapping[str, str]
) -> None:
    """Write one study per search of a cell to `path`, with one trial per configuration. A file that is there is replaced.

    `scores`: the name of each task's score, by task. The times of the trials are those of the ledger's records.
    """
    began, ended = _times(records)
    # Not with a random name: what a driver that was killed has left is removed by the next one, with Optuna's lock in it.
    scratch = path.with_name(f".{path.name}")
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        unfinished = scratch / FILE
        storage = JournalStorage(JournalFileBackend(str(unfinished)))
        for search in searches:
            name = str(search.cell) + (f" search {search.number + 1}" if search.number else "")
            names = [f"validation {scores.get(search.cell.task, 'score')}", "trained parameters"]
            study = optuna.create_study(storage=storage, study_name=name, directions=search.study.directions)
            study.set_metric_names(names[: len(search.study.directions)])
            for number, seeds in enumerate(search.configurations):
                study.add_trial(_frozen(search, number, seeds, began, ended))
    os.replace(unfinished, path)
    shutil.rmtree(scratch, ignore_errors=True)


def _frozen(
    search: CellSearch,
    number: int,
    seeds: Sequence[TrialEntry],
    began: Mapping[str, float],
    ended: Mapping[str, float],
) -> FrozenTrial:
    """Return configuration `number`, with its trials (one per search seed), as a trial of Optuna."""
    over = len(seeds) == search.budget.search_seeds and all(entry.outcome for entry in seeds)
    state, values = TrialState.RUNNING, None
    points: dict[int, float] = {}
    if over:
        outcome, points = aggregate_seeds(seeds)
        state = STATES[outcome.state]
        if state is TrialState.COMPLETE:
            values = search.study.objectives(outcome)
    found = optuna.trial.create_trial(
        state=state,
        values=values,
        params=search.study.parameters_of(number),
        distributions=distributions(search.study.dimensions),
        intermediate_values=points,
        user_attrs={"trials": [entry.trial.id for entry in seeds]},
    )
    found.datetime_start = _date(min(began[entry.trial.id] for entry in seeds))
    found.datetime_complete = _date(max(ended[entry.trial.id] for entry in seeds)) if over else None
    return found


def _times(records: Iterable[LedgerRecord]) -> tuple[dict[str, float], dict[str, float]]:
    """Return when each trial was asked for and when it ended, in seconds since 1970, by trial id."""
    began, ended = {}, {}
    for record in records:
        if isinstance(record.event, TrialAsked):
            began[record.event.id] = record.time
        elif isinstance(record.event, TrialEnded):
            ended[record.event.id] = record.time
    return began, ended


def _date(time: float) -> datetime:
    return datetime.fromtimestamp(time, UTC)
