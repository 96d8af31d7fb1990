"""One cell on its way: its search, its winner, its finals. Pure bookkeeping; a function of what was reported.

Trial i is proposed and judged by trials 0..i - in_flight only, all of which ended before it was asked for. Neither the clock nor
the number of workers can therefore change what a cell does, and replaying its record gives the same cell.

A configuration is trained on `search_seeds` seeds, one trial after the other: trial i is seed i modulo `search_seeds` of
configuration i // search_seeds. ASHA judges trials; the study and the choice of the winner see configurations.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean

from orchestrator.search.asha import Bracket
from orchestrator.search.sampler import Study
from search_spaces.language import Budget, Cell, Scalar, Space
from search_spaces.records import BUDGET, Outcome, Progress, State, Trial

# States in which a trial ends, the one that decides over its configuration first.
WORST: tuple[State, ...] = ("INVALID", "FAILED", "STOPPED", "DONE")


@dataclass
class TrialEntry:
    """A trial of this cell: where it stands in the search or among the final seeds, what it reported, how it ended."""

    trial: Trial
    number: int
    curve: list[Progress] = field(default_factory=list)
    outcome: Outcome | None = None
    cached: bool = False

    @property
    def failed(self) -> bool:
        """Ended by an error. Divergence is a result."""
        return bool(self.outcome and self.outcome.state == "FAILED" and self.outcome.reason != "diverged")

    @property
    def can_win(self) -> bool:
        """Ran to its end, or until the time budget stopped it: then with the best score it had."""
        return bool(self.outcome and (self.outcome.state == "DONE" or self.outcome.reason == BUDGET))

    def best_at(self, epoch: int) -> float | None:
        return self.curve[epoch - 1].best_score if epoch <= len(self.curve) else None


class CellSearch:
    """`make` builds the trial of a configuration: (hyperparameters, seed, phase) -> Trial."""

    def __init__(self, cell: Cell, space: Space, make: Callable[..., Trial]):
        self.cell, self.make, self.seed = cell, make, space.seed
        self.budget: Budget = space.budget
        dimensions = space.dimensions_of(space.entry(cell.method))
        self.study = Study(dimensions, self.budget.trials, space.seed, cell)
        self.bracket = Bracket(
            grace=self.budget.grace,
            reduction=self.budget.reduction,
            min_values=self.budget.min_values,
            epochs=space.recipe.epochs,
        )
        self.search: list[TrialEntry] = []
        self.finals: list[TrialEntry] = []
        # The time budget has ended the search; and the finals of winners from before it was taken up again.
        self.curtailed = False
        self._former: list[TrialEntry] = []
        self._told = 0
        # What follows is remembered so that an ask or a decision costs no more late in a search than early: how many
        # entries have ended without a gap, and the scores of those at each rung, None for the ones that did not get there.
        self._ended = 0
        self._rungs: dict[int, list[float | None]] = {}
        self._winner: TrialEntry | None = None
        self._forget()

    @property
    def entries(self) -> list[TrialEntry]:
        return self.search + self.finals

    @property
    def planned(self) -> int:
        """Trials of the whole search."""
        return self.study.limit * self.budget.search_seeds

    @property
    def ended(self) -> int:
        """How many entries of the search, from the first on, have all ended."""
        ended = self._ended
        while ended < len(self.search) and self.search[ended].outcome:
            ended += 1
        self._ended = ended  # at once: the display looks from another thread
        return ended

    @property
    def live(self) -> int:
        return sum(entry.outcome is None for entry in self.search[self.ended :] + self.finals)

    @property
    def room(self) -> int:
        """How many trials may be asked for now, before anything else ends."""
        if self.winner is not None:
            return self.budget.final_seeds - len(self.finals)
        if self.curtailed:
            # A cell needs one configuration.
            return int(not self.live and not self._candidates and len(self.search) < self.planned)
        return min(self.planned, self.ended + self.budget.in_flight) - len(self.search)

    @property
    def searched(self) -> bool:
        if self.ended < len(self.search):
            return False
        return len(self.search) >= self.planned or (self.curtailed and bool(self._candidates))

    @property
    def finished(self) -> bool:
        if not self.searched or any(entry.outcome is None for entry in self.finals):
            return False
        return self.winner is None or len(self.finals) == self.budget.final_seeds

    @property
    def winner(self) -> TrialEntry | None:
        """The first candidate of the configuration with the best mean validation score over its seeds. None while searching.

        Nothing wins by a lucky remainder: a configuration with fewer candidates comes after all with more. Lower lr, then the
        earlier one, on ties.
        """
        if self._winner is None and self.searched:
            tried = [[e for e in self._seeds(i) if e.can_win] for i in range(self.study.asked)]
            best = min(
                filter(None, tried), key=lambda s: (-len(s), -_mean(s), s[0].trial.lr, s[0].number), default=None
            )
            self._winner = best[0] if best else None
            self.finals += self._again() if self._winner else []
        return self._winner

    @property
    def _candidates(self) -> list[TrialEntry]:
        return [entry for entry in self.search if entry.can_win]

    def _again(self) -> list[TrialEntry]:
        """Finals from before the search was taken up again that are the winner's all the same."""
        assert self._winner is not None
        done = [e for e in self._former if e.outcome and e.outcome.state == "DONE"]
        same = {e.trial.seed: e for e in done if e.trial.hyperparameters == self._winner.trial.hyperparameters}
        found: list[TrialEntry] = []
        while (seed := self.seed + self.budget.search_seeds + len(found)) in same:
            found.append(same[seed])
        return found

    def extend(self) -> None:
        """Take up a search again that the time budget had ended.

        No proposal and no decision has been based on a trial that the budget stopped, so that the search goes on as if it
        had never been ended.
        """
        stopped = [e for e in self.search if e.outcome and e.outcome.reason == BUDGET]
        self.curtailed = False
        if stopped or len(self.search) < self.planned:
            for entry in stopped:
                entry.outcome = None
            self._former, self.finals, self._winner = self._former + self.finals, [], None
            self._forget()

    def _forget(self) -> None:
        """Look at every entry anew."""
        self._ended = 0
        self._rungs = {epoch: [] for epoch in self.bracket.rungs}

    def next(self) -> TrialEntry | None:
        """The next trial to run, entered as asked; None when the cell has to wait or has nothing left."""
        if self.room <= 0:
            return None
        if self.winner is not None:
            return self._final(self.winner)
        again = len(self.search) % self.budget.search_seeds
        if again:
            return self._enter(self.search[-1].trial.hyperparameters, self.seed + again)
        self._tell(len(self.search))
        return self._enter(self.study.ask(), self.seed)

    def replay(self, trial: Trial) -> TrialEntry:
        """Enter a trial that the record says was asked for."""
        if trial.phase == "final":
            assert self.winner is not None, "a final was asked for, so that there was a winner"
            entry = TrialEntry(trial, len(self.finals))
            self.finals.append(entry)
            return entry
        if len(self.search) % self.budget.search_seeds == 0:
            self._tell(len(self.search))
            self.study.replay({name: trial.hyperparameters[name] for name in self.study.names})
        entry = TrialEntry(trial, len(self.search))
        self.search.append(entry)
        return entry

    def reopen_failed(self) -> None:
        """Give failed trials another chance when a sweep is continued: what made them fail may have been mended.

        Not once the cell has its winner: a search trial that came back then could contradict it.
        """
        for entry in self.finals if self.finals else self.search:
            if entry.failed:
                entry.outcome = None
        self._forget()

    def stops(self, entry: TrialEntry, progress: Progress) -> bool:
        """Whether ASHA ends this trial at this epoch. Finals are never stopped."""
        if entry.trial.phase == "final" or progress.epoch not in self._rungs:
            return False
        judges = max(0, entry.number - self.budget.in_flight + 1)
        return self.bracket.stops(progress.epoch, progress.best_score, self._scores(progress.epoch, judges))

    def _scores(self, epoch: int, judges: int) -> list[float]:
        """What the first `judges` entries of the search had at this rung."""
        known = self._rungs[epoch]
        known += [entry.best_at(epoch) for entry in self.search[len(known) : self.ended]]
        late = [entry.best_at(epoch) for entry in self.search[len(known) : judges]]
        return [score for score in known[:judges] + late if score is not None]

    def _tell(self, number: int) -> None:
        """Tell the study, in order, about the configurations that the proposal of trial `number` may know."""
        known = max(0, number - self.budget.in_flight + 1) // self.budget.search_seeds
        for configuration in range(self._told, known):
            self.study.tell(configuration, *together(self._seeds(configuration)))
            self._told += 1

    def _seeds(self, configuration: int) -> list[TrialEntry]:
        """The trials of one configuration so far."""
        seeds = self.budget.search_seeds
        return self.search[configuration * seeds : (configuration + 1) * seeds]

    def _enter(self, hyperparameters: dict[str, Scalar], seed: int) -> TrialEntry:
        entry = TrialEntry(self.make(self.cell, hyperparameters, seed, "search"), len(self.search))
        self.search.append(entry)
        return entry

    def _final(self, winner: TrialEntry) -> TrialEntry:
        seed = self.seed + self.budget.search_seeds + len(self.finals)
        entry = TrialEntry(self.make(self.cell, winner.trial.hyperparameters, seed, "final"), len(self.finals))
        self.finals.append(entry)
        return entry


def together(seeds: Sequence[TrialEntry]) -> tuple[Outcome, list[Progress]]:
    """How a configuration ended, from its trials, all of which have: the means of their best scores, as far as all came.

    One seed that failed makes it a failure, one that ASHA stopped a stopped configuration.
    """
    ends = [entry.outcome for entry in seeds if entry.outcome]
    assert len(ends) == len(seeds) > 0
    state = min((end.state for end in ends), key=WORST.index)
    curve = [
        replace(points[0], best_score=fmean(point.best_score for point in points))
        for points in zip(*(entry.curve for entry in seeds), strict=False)
    ]
    return replace(ends[0], state=state, best_score=_mean(seeds)), curve


def _mean(seeds: Sequence[TrialEntry]) -> float:
    return fmean(entry.outcome.best_score for entry in seeds if entry.outcome)
