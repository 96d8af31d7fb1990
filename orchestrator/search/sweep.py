"""The state of a sweep: what runs next, what each report means, what is left. Knows no framework, no thread and no clock.

Everything it decides is in the ledger before it is acted on, and `Sweep` is rebuilt from the ledger alone. It goes through the
events one by one instead of asking `SweepHistory`: a study has to be told of them in the order in which they came. Nothing
that is done per trial or per report looks at all trials.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Literal

from orchestrator.ledger import LEDGER, Damaged, Ledger, advice, write_atomic
from orchestrator.search.cell import CellSearch, CellSnapshot, TrialEntry
from orchestrator.search.result_cache import ResultCache
from search_spaces.events import (
    EpochReported,
    Event,
    LedgerRecord,
    SearchesEndedEarly,
    SearchesResumed,
    SweepFinished,
    SweepInterrupted,
    TrialAsked,
    TrialEnded,
    TrialStarted,
    WinnerChosen,
)
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
        cache: ResultCache,
        make: Callable[..., Trial],
        count: Callable[[Trial], Counts],
        notify: Callable[[Sequence[LedgerRecord]], None] = lambda records: None,
    ):
        self.space, self._ledger, self._cache, self._count, self._notify = space, ledger, cache, count, notify
        self.cells = {cell: CellSearch(cell, space, make) for cell in space.cells}
        self._by_id: dict[str, tuple[CellSearch, TrialEntry]] = {}
        self._best: dict[Cell, TrialEntry] = {}
        self._failed = self._ended = 0
        self._decided: list[Event] = []
        self._depth = 0
        self.draining = ""
        # The time budget that ended the searches; None while none has.
        self.ended_early: SearchesEndedEarly | None = None
        self._waiting: list[tuple[CellSearch, TrialEntry]] = []
        self._announced: set[Cell] = set()
        self._replay(ledger.records)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Make what is decided inside durable at the end, with one write for all of it; act on it only then."""
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1
        if not self._depth:
            decided, self._decided = self._decided, []
            if decided:
                self._notify(self._ledger.append(*decided))

    def next_trial(self) -> Trial | Literal["wait", "finished"]:
        """Return a trial that is to start now, and record that it does. "wait": nothing can start before a trial reports.

        May end other trials on the way, those whose end is known without training: that another sweep has trained, or that
        were to be stopped when the last driver died.
        """
        with self.transaction():
            return self._next_trial()

    def _next_trial(self) -> Trial | Literal["wait", "finished"]:
        while not self.draining and not self.broken:
            found = self._waiting.pop(0) if self._waiting else self._ask()
            if found is None:
                return "finished" if self.finished else "wait"
            search, entry = found
            if self._end_by_record(search, entry) or self._end_by_cache(search, entry):
                continue
            self._append(TrialStarted(id=entry.trial.id))
            return entry.trial
        return "finished"

    def known_epochs(self, trial_id: str) -> int:
        """Return how many epochs of this trial are on record; it need not report them again."""
        return len(self._by_id[trial_id][1].curve)

    def record(
        self, trial_id: str, progress: Progress, ended: Outcome | None = None, test: TestResult | None = None
    ) -> bool:
        """Enter an epoch, and the end that came with it. Returns whether the trial should go on; repeats change nothing."""
        search, entry = self._by_id[trial_id]
        if entry.outcome:
            return False
        with self.transaction():
            if progress.epoch > len(entry.curve) and self._stops(search, entry, progress, ended):
                ended = stopped(entry.curve)
            ended = ended or self._end_of_stopped_search(search, entry)
            if ended:
                self._end(search, entry, ended, test)
        return ended is None

    def fail(self, trial_id: str, reason: str) -> None:
        """End a trial as failed: no retry could train it to its end."""
        search, entry = self._by_id[trial_id]
        if not entry.outcome:
            with self.transaction():
                self._end(search, entry, Outcome(state="FAILED", reason=reason, epochs=len(entry.curve)), None)

    def drain(self, reason: str) -> None:
        """Start nothing new; what runs may finish its epoch."""
        if not self.draining:
            self.draining = reason
            with self.transaction():
                self._append(SweepInterrupted(reason=reason))

    def end_searches_early(self, budget: SearchesEndedEarly) -> None:
        """End the searches of all cells: what runs may report once more, then the best so far goes into the finals."""
        with self.transaction():
            self._append(budget)
            self._end_searches_early(budget)
            for search in self.cells.values():
                self._choose_winner(search)

    def resume_searches(self) -> None:
        """Resume the searches that a time budget had ended."""
        with self.transaction():
            self._append(SearchesResumed(cells=tuple(self._resume_searches())))
        self._recount()

    def requeue(self) -> None:
        """Start again what was started and has not ended: the workers that trained it are gone."""
        self._waiting = [(s, e) for s, e in self._by_id.values() if e.outcome is None]

    def close(self) -> None:
        """Record that every cell is finished."""
        if self.finished:
            with self.transaction():
                self._append(SweepFinished())

    @property
    def finished(self) -> bool:
        return all(search.finished for search in self.cells.values())

    @property
    def over(self) -> bool:
        """Whether nothing will be started any more."""
        return bool(self.draining or self.broken) or self.finished

    @property
    def startable(self) -> int:
        """How many trials may run now: those that were asked for and have not ended, and those that may be asked for."""
        return sum(search.num_running + max(0, search.num_startable) for search in self.cells.values())

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

    def snapshot(self) -> tuple[CellSnapshot, ...]:
        """Return where each cell stands. Call it under the lock under which decisions are taken; read the result anywhere."""
        return tuple(search.snapshot() for search in self.cells.values())

    def entry(self, trial_id: str) -> TrialEntry:
        return self._by_id[trial_id][1]

    def _ask(self) -> tuple[CellSearch, TrialEntry] | None:
        """Return a new trial: a final where one may start, else one of the search that has run least."""
        order = sorted(self.cells.values(), key=lambda s: (s.winner is None, s.num_running, len(s.search)))
        for search in order:
            entry = search.next()
            if entry:
                self._enter(search, entry)
                self._append(TrialAsked(number=entry.number, id=entry.trial.id, trial=entry.trial))
                return search, entry
        return None

    def _enter(self, search: CellSearch, entry: TrialEntry) -> None:
        self._by_id[entry.trial.id] = (search, entry)

    def _end_by_record(self, search: CellSearch, entry: TrialEntry) -> bool:
        """End a trial that was to be stopped when the driver died, before that was written. Returns whether it was."""
        if not entry.curve:
            return False
        ended = (
            stopped(entry.curve) if search.stops(entry, entry.curve[-1]) else self._end_of_stopped_search(search, entry)
        )
        if ended:
            self._end(search, entry, ended, None)
        return ended is not None

    def _end_of_stopped_search(self, search: CellSearch, entry: TrialEntry) -> Outcome | None:
        """Return how a trial ends whose search the time budget has ended; None for a final, and while it has not."""
        return stopped(entry.curve, BUDGET) if search.ended_early and entry.trial.phase == "search" else None

    def _end_by_cache(self, search: CellSearch, entry: TrialEntry) -> bool:
        """End a trial as it did in another sweep, up to where this cell's own rungs end it. Returns whether it did."""
        found = self._cache.get(entry.trial.id)
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
            self._append(EpochReported(id=entry.trial.id, progress=progress))
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
        self._enter_outcome(search, entry, outcome)
        self._append(TrialEnded(id=entry.trial.id, outcome=outcome, cached=entry.cached))
        self._choose_winner(search)

    def _enter_outcome(self, search: CellSearch, entry: TrialEntry, outcome: Outcome) -> None:
        """Enter how a trial ended, also in what is counted over all of them."""
        search.end(entry, outcome)
        self._ended += 1
        self._failed += entry.failed
        best = self._best.get(entry.trial.cell)
        if outcome.state == "DONE" and not entry.cached and (best is None or _rank(entry) > _rank(best)):
            self._best[entry.trial.cell] = entry

    def _choose_winner(self, search: CellSearch) -> None:
        """Choose the cell's winner if its search is over now, and record it once."""
        search.choose_winner()
        if search.winner and search.cell not in self._announced:
            self._announced.add(search.cell)
            self._append(WinnerChosen(cell=search.cell, id=search.winner.trial.id))

    def _stops(self, search: CellSearch, entry: TrialEntry, progress: Progress, ended: Outcome | None) -> bool:
        """Enter a new epoch. Returns whether ASHA ends the trial with it."""
        assert progress.epoch == len(entry.curve) + 1, "epochs are reported in order"
        stop = ended is None and search.stops(entry, progress)
        entry.curve.append(progress)
        self._append(EpochReported(id=entry.trial.id, progress=progress, decision="stop" if stop else "continue"))
        return stop

    def _append(self, event: Event) -> None:
        assert self._depth, "decisions are written in a transaction"
        self._decided.append(event)

    def _replay(self, records: Sequence[LedgerRecord]) -> None:
        for record in records:
            try:
                self._replay_event(record.event)
            except ValueError as error:
                raise Damaged(advice(self._ledger.folder / LEDGER, record.seq, str(error))) from None
        for search in self.cells.values():
            search.reopen_failed()
        self._recount()
        with self.transaction():
            for search in self.cells.values():
                self._choose_winner(search)

    def _replay_event(self, event: Event) -> None:
        """Enter what an earlier driver decided. Raises ValueError for what this space cannot have decided."""
        if isinstance(event, TrialAsked):
            self._replay_asked(event)
        elif isinstance(event, EpochReported):
            self._replayed(event.id)[1].curve.append(event.progress)
        elif isinstance(event, TrialEnded):
            search, entry = self._replayed(event.id)
            entry.cached = event.cached
            self._enter_outcome(search, entry, event.outcome)
        elif isinstance(event, WinnerChosen):
            self._announced.add(event.cell)
        elif isinstance(event, SearchesEndedEarly):
            self._end_searches_early(event)
        elif isinstance(event, SearchesResumed):
            self._resume_searches()

    def _replayed(self, trial_id: str) -> tuple[CellSearch, TrialEntry]:
        if trial_id not in self._by_id:
            raise ValueError(f"is about trial {trial_id}, which is none of this sweep any more")
        return self._by_id[trial_id]

    def _recount(self) -> None:
        self.requeue()
        self._ended, self._failed = len(self._by_id) - len(self._waiting), len(self.failures)

    def _end_searches_early(self, event: SearchesEndedEarly) -> None:
        self.ended_early = event
        for search in self.cells.values():
            search.ended_early = True

    def _resume_searches(self) -> list[Cell]:
        """Return the cells that have more to search."""
        self.ended_early = None
        found = []
        for cell, search in self.cells.items():
            before = search.finals
            search.resume_search()
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

    def _replay_asked(self, event: TrialAsked) -> None:
        trial = event.trial
        if trial.cell not in self.cells or trial.id != event.id:
            raise ValueError(f"asks for trial {event.id} of {trial.cell}, which this space does not contain")
        search = self.cells[trial.cell]
        self._enter(search, search.replay(trial))


def _rank(entry: TrialEntry) -> tuple[bool, float]:
    assert entry.outcome is not None
    return entry.trial.phase == "final", entry.outcome.best_score


def stopped(curve: Sequence[Progress], reason: str = "asha") -> Outcome:
    """Return the end of a trial that ASHA, or the time budget, stopped after its last report."""
    last = curve[-1]
    return Outcome(
        state="STOPPED", reason=reason, epochs=last.epoch, best_epoch=last.best_epoch, best_score=last.best_score
    )
