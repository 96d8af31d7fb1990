"""The state of a sweep: which trial starts next, what follows from each report, and what is left to do.

It uses neither Ray nor threads nor the time. Each decision is written to the ledger before it takes effect, and a `Sweep` is
rebuilt from the ledger alone. It replays the events one by one, instead of using `SweepHistory`, because a study must be told the
results in their original order. The work per trial or report does not grow with the number of trials.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Literal

from orchestrator.ledger import LEDGER, Damaged, Ledger, advice
from orchestrator.search.best_finals import BestFinals
from orchestrator.search.cell import CellSearch, TrialEntry, stopped
from orchestrator.search.predictions import write_predictions
from orchestrator.search.result_cache import ResultCache
from orchestrator.search.snapshots import CellSnapshot, take_snapshot
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
from search_spaces.records import BUDGET, Counts, Outcome, Progress, SearchKey, TestResult, Trial
from search_spaces.redaction import clean_line

log = logging.getLogger(__name__)

# A sweep is stopped when at least this many trials, and more than this share of the ended trials, have failed: then the set-up is
# likely to be wrong.
FAILED_AT_ONCE, FAILED_SHARE = 3, 0.2
# Most characters of the reason of a failure that are recorded.
REASON_LENGTH = 500


class Sweep:
    """The state of a sweep, rebuilt from the records in `ledger`; raises Damaged if they cannot belong to this space.

    `make(cell, hyperparameters, seed, phase, search)` builds a trial, `count(trial)` counts its parameters. `notify` is called
    with new records once they are durable.
    """

    def __init__(
        self,
        space: Space,
        ledger: Ledger,
        cache: ResultCache,
        make: Callable[..., Trial],
        count: Callable[[Trial], Counts | None],
        notify: Callable[[Sequence[LedgerRecord]], None] = lambda records: None,
    ):
        self.space, self._ledger, self._cache, self._count, self._notify = space, ledger, cache, count, notify
        numbers = range(space.budget.searches)
        self.searches = {(cell, n): CellSearch(cell, space, make, n, count) for n in numbers for cell in space.cells}
        self._by_id: dict[str, tuple[CellSearch, TrialEntry]] = {}
        self._best = BestFinals()
        self._failed = self._ended = 0
        self._decided: list[Event] = []
        self._depth = 0
        self.draining = ""
        # The event of the time budget that ended the searches; None while the searches go on.
        self.ended_early: SearchesEndedEarly | None = None
        self._waiting: list[tuple[CellSearch, TrialEntry]] = []
        # Trial ids of the winners that are recorded, by search.
        self._announced: dict[SearchKey, str] = {}
        self._replay(ledger.records)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Collect the events of the `with` block and write them to the ledger at its end, with one write.

        Decisions must not take effect before that. Transactions may be nested: the outermost one writes.
        """
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
        """Return the trial to start now and record its start; "wait" if none can start before another trial reports.

        "finished" means that nothing will be started any more. Trials whose end is known without training are ended here: those
        that another sweep has trained, and those that should have been stopped when the previous driver died.
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
        """Return the number of epochs of this trial that are recorded, and so need not be reported again."""
        return len(self._by_id[trial_id][1].curve)

    def record(
        self, trial_id: str, progress: Progress, ended: Outcome | None = None, test: TestResult | None = None
    ) -> bool:
        """Record an epoch of a trial, and its outcome `ended` if it was the last one. Return whether the trial should go on.

        An epoch that is recorded already is not recorded again.
        """
        search, entry = self._by_id[trial_id]
        if entry.outcome:
            return False
        with self.transaction():
            if progress.epoch > len(entry.curve) and self._stops(search, entry, progress, ended):
                ended = stopped(progress)
            ended = ended or self._end_of_stopped_search(search, entry)
            if ended:
                self._end(search, entry, ended, test)
        return ended is None

    def fail(self, trial_id: str, reason: str) -> None:
        """End a trial as FAILED, for a `reason` that a retry would not remove; secrets in it are left out."""
        search, entry = self._by_id[trial_id]
        reason = clean_line(reason)[:REASON_LENGTH]
        if not entry.outcome:
            with self.transaction():
                self._end(search, entry, Outcome(state="FAILED", reason=reason, epochs=len(entry.curve)), None)

    def drain(self, reason: str) -> None:
        """Start no more trials. Running trials may finish their current epoch."""
        if not self.draining:
            self.draining = reason
            with self.transaction():
                self._append(SweepInterrupted(reason=reason))

    def end_searches_early(self, budget: SearchesEndedEarly) -> None:
        """End the searches of all cells. Running search trials stop after their next report; then the winners are chosen.

        A cell of whose trials none has a score yet waits for the first one.
        """
        with self.transaction():
            self._append(budget)
            self._end_searches_early(budget)
            for search in self.searches.values():
                self._choose_winner(search)

    def resume_searches(self) -> None:
        """Resume the searches that a time budget had ended."""
        with self.transaction():
            resumed = self._resume_searches()
            cells, numbers = tuple(cell for cell, _ in resumed), tuple(number for _, number in resumed)
            self._append(SearchesResumed(cells=cells, searches=numbers if any(numbers) else ()))
        self._recount()

    def requeue(self) -> None:
        """Let `next_trial` return all trials again that have not ended, because the workers that trained them are gone."""
        self._waiting = [(s, e) for s, e in self._by_id.values() if e.outcome is None]

    def requeue_trial(self, trial_id: str) -> None:
        """Let `next_trial` return a trial again that has not ended, because its machine could not train it."""
        self._waiting.append(self._by_id[trial_id])

    def close(self) -> None:
        """Record the end of the sweep in the ledger if every cell is finished."""
        if self.finished:
            with self.transaction():
                self._append(SweepFinished())

    @property
    def finished(self) -> bool:
        return all(search.finished for search in self.searches.values())

    @property
    def over(self) -> bool:
        """Whether no more trials will be started."""
        return bool(self.draining or self.broken) or self.finished

    @property
    def startable(self) -> int:
        """The number of trials that could run now: those that have been asked for and not ended, and those that may be next."""
        return sum(search.num_running + max(0, search.num_startable) for search in self.searches.values())

    @property
    def failures(self) -> list[TrialEntry]:
        """The trials that ended with an error. A trial whose loss diverged counts as a result, not as an error."""
        return [e for _, e in self._by_id.values() if e.failed]

    @property
    def broken(self) -> str:
        """Why too many trials have failed for the sweep to go on; empty if it may go on."""
        if self._failed >= FAILED_AT_ONCE and self._failed > FAILED_SHARE * self._ended:
            return f"{self._failed} of {self._ended} trials failed"
        return ""

    def best_final(self, cell: Cell) -> TrialEntry | None:
        """Return the final of the cell with the best validation score, None if none has ended yet; see `BestFinals`."""
        return self._best.get(cell)

    def snapshot(self) -> tuple[CellSnapshot, ...]:
        """Return the progress of each cell. Call it under the lock that guards this object; the result needs no lock."""
        return tuple(take_snapshot(search) for search in self.searches.values())

    def entry(self, trial_id: str) -> TrialEntry:
        return self._by_id[trial_id][1]

    def _ask(self) -> tuple[CellSearch, TrialEntry] | None:
        """Return a new trial, None if none may start. Finals come first, then cells with the fewest running and asked trials."""
        order = sorted(self.searches.values(), key=lambda s: (s.winner is None, s.num_running, len(s.search)))
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
        """End a trial that its recorded epochs require to be stopped, if the driver died before that. Return whether it ended."""
        last = entry.curve.last
        if last is None:
            return False
        ended = stopped(last) if search.stops(entry, last) else self._end_of_stopped_search(search, entry)
        if ended:
            self._end(search, entry, ended, None)
        return ended is not None

    def _end_of_stopped_search(self, search: CellSearch, entry: TrialEntry) -> Outcome | None:
        """Return the outcome of a search trial if the time budget has ended the search, else None. Finals are not affected.

        While no trial of the cell can win, one without a score so far (see `Progress`) goes on to its first epoch that counts.
        """
        last = entry.curve.last
        if not search.ended_early or entry.trial.phase != "search" or last is None:
            return None
        if not last.has_best and search.lacks_candidate:
            return None
        return stopped(last, BUDGET)

    def _end_by_cache(self, search: CellSearch, entry: TrialEntry) -> bool:
        """End a trial with its recorded result from another sweep, if there is one. Return whether it ended.

        ASHA decides again with the scores of this cell, and may stop the trial earlier than in the other sweep.
        """
        found = self._cache.get(entry.trial.id)
        if found is None:
            return False
        ended = found.outcome
        for progress in found.curve:
            if search.stops(entry, progress):
                ended = stopped(progress)
                break
        else:
            # Only these two outcomes depend on the trial alone; another sweep's ASHA, time budget or errors do not apply here.
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
        # Counts are missing if no epoch was reported, and active ones in results of sweeps of older versions.
        if outcome.counts is None or outcome.counts.active is None:
            outcome = replace(outcome, counts=self._count(entry.trial))
        if test:
            outcome = replace(outcome, predictions=write_predictions(self._ledger.folder, entry.trial.id, test))
        self._enter_outcome(search, entry, outcome)
        self._append(TrialEnded(id=entry.trial.id, outcome=outcome, cached=entry.cached))
        self._choose_winner(search)

    def _enter_outcome(self, search: CellSearch, entry: TrialEntry, outcome: Outcome) -> None:
        """Enter the outcome of a trial, and update the counts over all trials and the best final of its cell."""
        search.end(entry, outcome)
        self._ended += 1
        self._failed += entry.failed
        self._best.add(entry)

    def _choose_winner(self, search: CellSearch) -> None:
        """Choose the winner of a search if it is over, and record the choice unless it is the last one recorded.

        Another winner than the recorded one follows if failed trials were trained again, and the search ended a second time.
        """
        search.choose_winner()
        if search.winner and self._announced.get(search.key) != search.winner.trial.id:
            self._announced[search.key] = search.winner.trial.id
            self._append(WinnerChosen(cell=search.cell, id=search.winner.trial.id))

    def _stops(self, search: CellSearch, entry: TrialEntry, progress: Progress, ended: Outcome | None) -> bool:
        """Record a new epoch. Return whether ASHA stops the trial after it."""
        assert progress.epoch == len(entry.curve) + 1, "epochs are reported in order"
        stop = ended is None and search.stops(entry, progress)
        entry.curve.append(progress)
        self._append(EpochReported(id=entry.trial.id, progress=progress, decision="stop" if stop else "continue"))
        return stop

    def _append(self, event: Event) -> None:
        assert self._depth, "decisions are written in a transaction"
        self._decided.append(event)

    def _replay(self, records: Iterable[LedgerRecord]) -> None:
        for record in records:
            try:
                self._replay_event(record.event)
            except ValueError as error:
                raise Damaged(advice(self._ledger.folder / LEDGER, record.seq, str(error))) from None
        for search in self.searches.values():
            search.reopen_failed()
        self._recount()
        with self.transaction():
            for search in self.searches.values():
                self._choose_winner(search)

    def _replay_event(self, event: Event) -> None:
        """Apply an event that an earlier driver recorded. Raises ValueError for an event that this space cannot have produced."""
        if isinstance(event, TrialAsked):
            self._replay_asked(event)
        elif isinstance(event, EpochReported):
            self._replayed(event.id)[1].curve.append(event.progress)
        elif isinstance(event, TrialEnded):
            search, entry = self._replayed(event.id)
            entry.cached = event.cached
            self._enter_outcome(search, entry, event.outcome)
        elif isinstance(event, WinnerChosen):
            self._announced[self._replayed(event.id)[0].key] = event.id
        elif isinstance(event, SearchesEndedEarly):
            self._end_searches_early(event)
        elif isinstance(event, SearchesResumed):
            self._resume_searches()

    def _replayed(self, trial_id: str) -> tuple[CellSearch, TrialEntry]:
        if trial_id not in self._by_id:
            raise ValueError(f"is about trial {trial_id}, which does not belong to this sweep any more")
        return self._by_id[trial_id]

    def _recount(self) -> None:
        self.requeue()
        self._ended, self._failed = len(self._by_id) - len(self._waiting), len(self.failures)

    def _end_searches_early(self, event: SearchesEndedEarly) -> None:
        self.ended_early = event
        for search in self.searches.values():
            search.ended_early = True

    def _resume_searches(self) -> list[SearchKey]:
        """Resume the searches that the time budget ended, and return those that have trials left."""
        self.ended_early = None
        found = []
        for key, search in self.searches.items():
            before = search.finals
            search.resume_search()
            if search.finals is not before:
                self._announced.pop(key, None)
                self._drop(search.cell, before)
                found.append(key)
        return found

    def _drop(self, cell: Cell, finals: Sequence[TrialEntry]) -> None:
        """Discard finals after their search was resumed, because the winner may change.

        Finals that have not ended are not trained, and none of the discarded ones is the best one of the cell any more.
        """
        for entry in finals:
            if entry.outcome is None:
                del self._by_id[entry.trial.id]
        self._best.choose(cell, [e for search in self.searches.values() if search.cell == cell for e in search.entries])

    def _replay_asked(self, event: TrialAsked) -> None:
        trial = self._ledger.history.trial(event.id).trial  # equal to the event's, and not a second object
        if trial.search_key not in self.searches or trial.id != event.id:
            raise ValueError(f"asks for trial {event.id} of {trial.cell}, which this space does not contain")
        search = self.searches[trial.search_key]
        self._enter(search, search.replay(trial))
