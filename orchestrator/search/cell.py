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
from typing import Literal

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


@dataclass(frozen=True, kw_only=True)
class CellSnapshot:
    """Where a cell stood at one moment: numbers of trials by state, and of epochs, in its search and finals."""

    cell: Cell
    phase: Literal["search", "finals", "finished"]
    done: int
    running: int
    stopped: int
    failed: int
    total: int  # as far as is planned now
    best: float | None  # validation score in percent points, of a search trial that ran to its end
    epochs: int


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
        # The best configuration's first trial, once `choose_winner` has found the search to be over.
        self.winner: TrialEntry | None = None
        # The time budget has ended the search; and the finals of winners from before it was resumed.
        self.ended_early = False
        self._former: list[TrialEntry] = []
        self._told = 0
        # What follows is remembered so that an ask or a decision costs no more late in a search than early: how many
        # entries have ended without a gap, and the scores of those at each rung, None for the ones that did not get there.
        self.num_ended = 0
        self._rungs: dict[int, list[float | None]] = {}
        self._recount()

    @property
    def entries(self) -> list[TrialEntry]:
        return self.search + self.finals

    @property
    def planned(self) -> int:
        """Trials of the whole search."""
        return self.study.limit * self.budget.search_seeds

    @property
    def num_running(self) -> int:
        """Trials that were asked for and have not ended."""
        return sum(entry.outcome is None for entry in self.search[self.num_ended :] + self.finals)

    @property
    def num_startable(self) -> int:
        """Trials that may be asked for now, before any other ends; negative while more run than may."""
        if self.winner is not None:
            return self.budget.final_seeds - len(self.finals)
        if self.ended_early:
            # A cell needs one configuration.
            return int(not self.num_running and not self._candidates and len(self.search) < self.planned)
        return min(self.planned, self.num_ended + self.budget.in_flight) - len(self.search)

    @property
    def searched(self) -> bool:
        """Whether the search is over: nothing of it runs, and nothing will be asked for."""
        if self.num_ended < len(self.search):
            return False
        return len(self.search) >= self.planned or (self.ended_early and bool(self._candidates))

    @property
    def finished(self) -> bool:
        if not self.searched or any(entry.outcome is None for entry in self.finals):
            return False
        return self.winner is None or len(self.finals) == self.budget.final_seeds

    def snapshot(self) -> CellSnapshot:
        states = [entry.outcome.state if entry.outcome else "RUNNING" for entry in self.entries]
        done = [e.outcome.best_score for e in self.search if e.outcome and e.outcome.state == "DONE"]
        finals = self.budget.final_seeds if self.winner or not self.searched else 0
        return CellSnapshot(
            cell=self.cell,
            phase="finished" if self.finished else "finals" if self.searched else "search",
            done=states.count("DONE"),
            running=states.count("RUNNING"),
            stopped=states.count("STOPPED"),
            failed=states.count("FAILED") + states.count("INVALID"),
            total=(len(self.search) if self.ended_early else self.planned) + finals,
            best=max(done, default=None),
            epochs=sum(len(entry.curve) for entry in self.entries),
        )

    def end(self, entry: TrialEntry, outcome: Outcome) -> None:
        """Enter how a trial of this cell ended. `choose_winner` is another step: it may be the search's last."""
        entry.outcome = outcome
        self._count_ended()

    def choose_winner(self) -> None:
        """Choose the winner, unless the search goes on or has one: the configuration with the best mean score over its seeds.

        Scores are those of the validation split. Nothing wins by a lucky remainder: a configuration with fewer candidates comes
        after all with more. Lower lr, then the earlier one, on ties. Finals of before are kept where they are the winner's.
        """
        if self.winner is None and self.searched:
            tried = [[e for e in self._seeds(i) if e.can_win] for i in range(self.study.num_asked)]
            best = min(
                filter(None, tried), key=lambda s: (-len(s), -_mean(s), s[0].trial.lr, s[0].number), default=None
            )
            if best:
                self.winner = best[0]
                self.finals += self._former_finals(self.winner)

    @property
    def _candidates(self) -> list[TrialEntry]:
        return [entry for entry in self.search if entry.can_win]

    def _former_finals(self, winner: TrialEntry) -> list[TrialEntry]:
        """Return the finals from before the search was resumed that are of this winner's configuration."""
        done = [e for e in self._former if e.outcome and e.outcome.state == "DONE"]
        same = {e.trial.seed: e for e in done if e.trial.hyperparameters == winner.trial.hyperparameters}
        found: list[TrialEntry] = []
        while (seed := self.seed + self.budget.search_seeds + len(found)) in same:
            found.append(same[seed])
        return found

    def resume_search(self) -> None:
        """Resume a search that the time budget had ended.

        No proposal and no decision has been based on a trial that the budget stopped, so that the search goes on as if it
        had never been ended.
        """
        stopped = [e for e in self.search if e.outcome and e.outcome.reason == BUDGET]
        self.ended_early = False
        if stopped or len(self.search) < self.planned:
            for entry in stopped:
                entry.outcome = None
            self._former, self.finals, self.winner = self._former + self.finals, [], None
            self._recount()

    def _recount(self) -> None:
        """Count what has ended from the first entry on: some that had are open again."""
        self.num_ended = 0
        self._rungs = {epoch: [] for epoch in self.bracket.rungs}
        self._count_ended()

    def _count_ended(self) -> None:
        while self.num_ended < len(self.search) and self.search[self.num_ended].outcome:
            for epoch, scores in self._rungs.items():
                scores.append(self.search[self.num_ended].best_at(epoch))
            self.num_ended += 1

    def next(self) -> TrialEntry | None:
        """The next trial to run, entered as asked; None when the cell has to wait or has nothing left."""
        if self.num_startable <= 0:
            return None
        if self.winner is not None:
            return self._final(self.winner)
        nth_seed = len(self.search) % self.budget.search_seeds
        if nth_seed:
            return self._enter(self.search[-1].trial.hyperparameters, self.seed + nth_seed)
        self._tell(len(self.search))
        return self._enter(self.study.ask(), self.seed)

    def replay(self, trial: Trial) -> TrialEntry:
        """Enter a trial that the ledger says was asked for. Raise ValueError for a final when the search is not over."""
        if trial.phase == "final":
            self.choose_winner()
            if self.winner is None:
                raise ValueError(f"asks for a final of {self.cell}, whose search is not over")
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
        """Open failed trials again when a sweep is continued: what made them fail may have been mended.

        Not those of the search once the cell has finals: a search trial that came back then could contradict the winner.
        """
        for entry in self.finals if self.finals else self.search:
            if entry.failed:
                entry.outcome = None
        self._recount()

    def stops(self, entry: TrialEntry, progress: Progress) -> bool:
        """Whether ASHA ends this trial at this epoch. Finals are never stopped."""
        if entry.trial.phase == "final" or progress.epoch not in self._rungs:
            return False
        judges = max(0, entry.number - self.budget.in_flight + 1)
        return self.bracket.stops(progress.epoch, progress.best_score, self._scores(progress.epoch, judges))

    def _scores(self, epoch: int, judges: int) -> list[float]:
        """Return the best scores at this rung of the first `judges` entries of the search, of those that got there."""
        known = self._rungs[epoch]
        late = [entry.best_at(epoch) for entry in self.search[len(known) : judges]]
        return [score for score in known[:judges] + late if score is not None]

    def _tell(self, number: int) -> None:
        """Tell the study, in order, about the configurations that the proposal of trial `number` may know."""
        known = max(0, number - self.budget.in_flight + 1) // self.budget.search_seeds
        for configuration in range(self._told, known):
            self.study.tell(configuration, *aggregate_seeds(self._seeds(configuration)))
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


def aggregate_seeds(seeds: Sequence[TrialEntry]) -> tuple[Outcome, list[Progress]]:
    """Return how a configuration ended, from its trials, which all have: means of their best scores, up to the shortest curve.

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
