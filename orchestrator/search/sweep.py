"""The state of a sweep: what runs next, what each report means, what is left. Knows no framework, no thread and no clock.

Everything it decides is in the ledger before it is acted on, and `Sweep` is rebuilt from the ledger alone. Nothing that is
done per trial or per report looks at all trials.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Literal

from orchestrator.ledger import Damaged, Ledger, write_atomic
from orchestrator.search.cell import CellSearch, TrialEntry
from orchestrator.search.result_cache import ResultCache
from search_spaces.language import Cell, Space
from search_spaces.records import BUDGET, Counts, Outcome, Progress, TestResult, Trial

log = logging.getLogger(__name__)

# The first trials all failing, or a fifth of what has ended, means the set-up is wrong: better to stop than to burn the budget.
FAILED_AT_ONCE, FAILED_SHARE = 3, 0.2
PREDICTIONS = "predictions"


class Sweep:
    """`make`: (cell, hyperparameters, seed, phase) -> Trial; `count`: its parameters. `notify` gets every durable record."""

    def __init__(
        self,
        space: Space,
        ledger: Ledger,
        library: ResultCache,
        make: Callable[..., Trial],
        count: Callable[[Trial], Counts],
        notify: Callable[[Sequence[dict[str, Any]]], None] = lambda records: None,
    ):
        self.space, self._ledger, self._library, self._count, self._notify = space, ledger, library, count, notify
        self.cells = {cell: CellSearch(cell, space, make) for cell in space.cells}
        self._by_id: dict[str, tuple[CellSearch, TrialEntry]] = {}
        self._best: dict[Cell, TrialEntry] = {}
        self._failed = self._ended = 0
        self._decided: list[dict[str, Any]] = []
        self._depth = 0
        self.draining = ""
        # The record of the time budget that ended the searches; empty while none has.
        self.curtailed: Mapping[str, Any] = {}
        self._waiting: list[tuple[CellSearch, TrialEntry]] = []
        self._announced: set[Cell] = set()
        self._replay(ledger.records)

    @contextmanager
    def together(self) -> Iterator[None]:
        """What is decided inside becomes durable at its end, with one write for all of it; act on it only then."""
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1
        if not self._depth:
            decided, self._decided = self._decided, []
            if decided:
                self._notify(self._ledger.append(*decided))

    def suggest(self) -> Trial | Literal["wait", "finished"]:
        """The next trial to start. "wait": nothing can start before something running reports."""
        with self.together():
            return self._suggest()

    def _suggest(self) -> Trial | Literal["wait", "finished"]:
        while not self.draining and not self.broken:
            found = self._waiting.pop(0) if self._waiting else self._ask()
            if found is None:
                return "finished" if self.finished else "wait"
            search, entry = found
            if self._ends_from_record(search, entry) or self._ends_from_library(search, entry):
                continue
            self._append({"event": "started", "id": entry.trial.id})
            return entry.trial
        return "finished"

    def known_epochs(self, trial_id: str) -> int:
        """Epochs of this trial that are on record; it need not report them again."""
        return len(self._by_id[trial_id][1].curve)

    def record(
        self, trial_id: str, progress: Progress, ended: Outcome | None = None, test: TestResult | None = None
    ) -> bool:
        """Enter an epoch, and the end that came with it. Returns whether the trial should go on; repeats change nothing."""
        search, entry = self._by_id[trial_id]
        if entry.outcome:
            return False
        with self.together():
            if progress.epoch > len(entry.curve) and self._stops(search, entry, progress, ended):
                ended = stopped(entry.curve)
            ended = ended or self._curtailed(search, entry)
            if ended:
                self._end(search, entry, ended, test)
        return ended is None

    def fail(self, trial_id: str, reason: str) -> None:
        """A trial that could not be trained to its end by any number of retries."""
        search, entry = self._by_id[trial_id]
        if not entry.outcome:
            with self.together():
                self._end(search, entry, Outcome(state="FAILED", reason=reason, epochs=len(entry.curve)), None)

    def drain(self, reason: str) -> None:
        """Start nothing new; what runs may finish its epoch."""
        if not self.draining:
            self.draining = reason
            with self.together():
                self._append({"event": "interrupted", "reason": reason})

    def curtail(self, budget: str, allowed: float, spent: float, needed: float) -> None:
        """End the searches of all cells: what runs may report once more, then the best so far goes into the finals.

        `budget` is the option as given, `allowed` its seconds, `spent` those gone, `needed` those kept for the finals.
        """
        with self.together():
            event = {"event": "curtailed", "budget": budget, "allowed": allowed, "spent": spent, "needed": needed}
            self._append(event)
            self._curtail(event)
            for search in self.cells.values():
                self._announce(search)

    def extend(self) -> None:
        """Take up the searches again that a time budget had ended."""
        with self.together():
            self._append({"event": "extended", "cells": [vars(cell) for cell in self._extend()]})
        self._recount()

    def requeue(self) -> None:
        """Hand out again what was started and has not ended: whoever ran it is gone."""
        self._waiting = [(s, e) for s, e in self._by_id.values() if e.outcome is None]

    def close(self) -> None:
        """Record that every cell is finished."""
        if self.finished:
            with self.together():
                self._append({"event": "finished"})

    @property
    def finished(self) -> bool:
        return all(search.finished for search in self.cells.values())

    @property
    def over(self) -> bool:
        """Whether nothing will be started any more."""
        return bool(self.draining or self.broken) or self.finished

    @property
    def startable(self) -> int:
        """How many trials may run now: what has been asked for and has not ended, and what may be asked for."""
        return sum(search.live + max(0, search.room) for search in self.cells.values())

    @property
    def failures(self) -> list[TrialEntry]:
        """Trials that failed for a reason other than divergence, which is a result."""
        return [e for _, e in self._by_id.values() if e.failed]

    @property
    def broken(self) -> str:
        """Why the sweep should not go on; empty while it may."""
        if self._failed >= FAILED_AT_ONCE and self._failed > FAILED_SHARE * self._ended:
            return f"{self._failed} of {self._ended} trials failed"
        return ""

    def best_of(self, cell: Cell) -> TrialEntry | None:
        """The entry whose checkpoint is worth keeping: the best final, before there is one the best finished trial."""
        return self._best.get(cell)

    def entry(self, trial_id: str) -> TrialEntry:
        return self._by_id[trial_id][1]

    def _ask(self) -> tuple[CellSearch, TrialEntry] | None:
        """A new trial from the cell that has run least; the finals of a cell before anybody's search."""
        order = sorted(self.cells.values(), key=lambda s: (s.winner is None, s.live, len(s.search)))
        for search in order:
            entry = search.next()
            if entry:
                self._enter(search, entry)
                self._append(
                    {"event": "asked", "number": entry.number, "id": entry.trial.id, "trial": entry.trial.to_json()}
                )
                return search, entry
        return None

    def _enter(self, search: CellSearch, entry: TrialEntry) -> None:
        self._by_id[entry.trial.id] = (search, entry)

    def _ends_from_record(self, search: CellSearch, entry: TrialEntry) -> bool:
        """A trial that was to be stopped when the driver died, before that was written."""
        if not entry.curve:
            return False
        ended = stopped(entry.curve) if search.stops(entry, entry.curve[-1]) else self._curtailed(search, entry)
        if ended:
            self._end(search, entry, ended, None)
        return ended is not None

    def _curtailed(self, search: CellSearch, entry: TrialEntry) -> Outcome | None:
        """How a trial ends whose search the time budget has ended; None for a final."""
        return stopped(entry.curve, BUDGET) if search.curtailed and entry.trial.phase == "search" else None

    def _ends_from_library(self, search: CellSearch, entry: TrialEntry) -> bool:
        """Take the result of the same trial from another sweep, as far as this cell's own rungs let it go."""
        found = self._library.get(entry.trial.id)
        if found is None:
            return False
        ended = found.outcome
        for i, progress in enumerate(found.curve):
            if search.stops(entry, progress):
                ended = stopped(found.curve[: i + 1])
                break
        else:
            # It ended there for a reason that holds here only if nothing outside the trial had a hand in it.
            if ended is None or not (ended.state == "DONE" or ended.reason == "diverged"):
                return False
        test = found.test() if entry.trial.phase == "final" else None
        if entry.trial.phase == "final" and test is None:
            return False
        for progress in found.curve[: ended.epochs][len(entry.curve) :]:
            entry.curve.append(progress)
            self._append(
                {"event": "progress", "id": entry.trial.id, "progress": progress.to_json(), "decision": "continue"}
            )
        entry.cached = True
        self._end(search, entry, ended, test)
        return True

    def _end(self, search: CellSearch, entry: TrialEntry, outcome: Outcome, test: TestResult | None) -> None:
        outcome = replace(outcome, counts=outcome.counts or self._count(entry.trial))
        if test:
            name = f"{PREDICTIONS}/{entry.trial.id}.json"
            content = {"predictions": list(test.predictions), "labels": list(test.labels)}
            write_atomic(self._ledger.folder / name, json.dumps(content))
            outcome = replace(outcome, predictions=name)
        self._close_entry(entry, outcome)
        self._append({"event": "ended", "id": entry.trial.id, "outcome": outcome.to_json(), "cached": entry.cached})
        self._announce(search)

    def _close_entry(self, entry: TrialEntry, outcome: Outcome) -> None:
        """Enter how a trial ended, also in what is counted over all of them."""
        entry.outcome = outcome
        self._ended += 1
        self._failed += entry.failed
        best = self._best.get(entry.trial.cell)
        if outcome.state == "DONE" and not entry.cached and (best is None or _rank(entry) > _rank(best)):
            self._best[entry.trial.cell] = entry

    def _announce(self, search: CellSearch) -> None:
        winner = search.winner
        if winner and search.cell not in self._announced:
            self._announced.add(search.cell)
            self._append({"event": "winner", "cell": vars(search.cell), "id": winner.trial.id})

    def _stops(self, search: CellSearch, entry: TrialEntry, progress: Progress, ended: Outcome | None) -> bool:
        """Enter a new epoch; whether ASHA ends the trial with it."""
        assert progress.epoch == len(entry.curve) + 1, "epochs are reported in order"
        stop = ended is None and search.stops(entry, progress)
        entry.curve.append(progress)
        decision = "stop" if stop else "continue"
        self._append({"event": "progress", "id": entry.trial.id, "progress": progress.to_json(), "decision": decision})
        return stop

    def _append(self, event: dict[str, Any]) -> None:
        assert self._depth, "decisions are written together"
        self._decided.append(event)

    def _replay(self, records: Sequence[dict[str, Any]]) -> None:
        for record in records:
            if record["event"] == "asked":
                self._replay_asked(record)
            elif record["event"] == "progress":
                self.entry(record["id"]).curve.append(Progress.from_json(record["progress"]))
            elif record["event"] == "ended":
                entry = self.entry(record["id"])
                entry.cached = record["cached"]
                self._close_entry(entry, Outcome.from_json(record["outcome"]))
            elif record["event"] == "winner":
                self._announced.add(Cell(**record["cell"]))
            elif record["event"] == "curtailed":
                self._curtail(record)
            elif record["event"] == "extended":
                self._extend()
        for search in self.cells.values():
            search.reopen_failed()
        self._recount()
        with self.together():
            for search in self.cells.values():
                self._announce(search)

    def _recount(self) -> None:
        self.requeue()
        self._ended, self._failed = len(self._by_id) - len(self._waiting), len(self.failures)

    def _curtail(self, event: Mapping[str, Any]) -> None:
        self.curtailed = event
        for search in self.cells.values():
            search.curtailed = True

    def _extend(self) -> list[Cell]:
        """Returns the cells that have more to search."""
        self.curtailed = {}
        found = []
        for cell, search in self.cells.items():
            before = search.finals
            search.extend()
            if search.finals is not before:
                self._announced.discard(cell)
                self._drop(cell, before)
                found.append(cell)
        return found

    def _drop(self, cell: Cell, finals: Sequence[TrialEntry]) -> None:
        """Finals of a winner that may not be one: what has not ended is not trained, and none is the best of its cell."""
        for entry in finals:
            if entry.outcome is None:
                del self._by_id[entry.trial.id]
        done = [e for e in self.cells[cell].search if e.outcome and e.outcome.state == "DONE" and not e.cached]
        if done:
            self._best[cell] = max(done, key=_rank)
        else:
            self._best.pop(cell, None)

    def _replay_asked(self, record: dict[str, Any]) -> None:
        trial = Trial.from_json(record["trial"])
        if trial.cell not in self.cells or trial.id != record["id"]:
            raise Damaged(
                f"{self._ledger.folder}: record {record['seq']} asks for trial {record['id']} of {trial.cell}, which this space "
                f"does not contain; give another --out, or put the ledger of this sweep back"
            )
        search = self.cells[trial.cell]
        self._enter(search, search.replay(trial))


def _rank(entry: TrialEntry) -> tuple[bool, float]:
    assert entry.outcome is not None
    return entry.trial.phase == "final", entry.outcome.best_score


def stopped(curve: Sequence[Progress], reason: str = "asha") -> Outcome:
    """The end of a trial that ASHA, or the time budget, stopped after its last report."""
    last = curve[-1]
    return Outcome(
        state="STOPPED", reason=reason, epochs=last.epoch, best_epoch=last.best_epoch, best_score=last.best_score
    )
