"""The state of one search of a cell: its trials, its winner and its finals. It depends on nothing but the trials' reports.

The proposal of trial i, and ASHA's decisions on it, use only trials 0 to i - `Space.in_flight`. All of these have ended before
trial i is started, so the result depends neither on time nor on the number of workers, and replaying the ledger reproduces it.

A configuration is trained on `search_seeds` seeds, in consecutive trials: trial i trains configuration i // search_seeds on its
seed number i % search_seeds. ASHA decides on single trials; the study and the choice of the winner use means over the seeds.

With `Budget.searches` = k, a cell has k of these objects. They share nothing: each has a validation split, seeds, a study, a
winner and finals of its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean

from orchestrator.search.asha import Brackets
from orchestrator.search.curve import Curve, mean_curve
from orchestrator.search.sampler import open_study
from search_spaces.language import Budget, Cell, Scalar, Space
from search_spaces.records import BUDGET, SEEDS_PER_SEARCH, Counts, Outcome, Progress, SearchKey, State, Trial

# End states, worst first: a configuration gets the worst state of its trials (`aggregate_seeds`).
WORST: tuple[State, ...] = ("INVALID", "FAILED", "STOPPED", "DONE")
# A trial that reached a rung: its number, its best score up to there, and `TrialEntry.trained`.
RungScore = tuple[int, float, float]


@dataclass(slots=True)
class TrialEntry:
    """One trial of the cell.

    `number` counts from 0, search trials and finals apart. `curve` has its reported epochs. `outcome` is None until
    the trial ends. `cached`: the result was copied from another sweep. `trained`: number of trained parameters, NaN if it is not
    known before the trial ends; 0 where ASHA does not use it.
    """

    trial: Trial
    number: int
    curve: Curve = field(default_factory=Curve)
    outcome: Outcome | None = None
    cached: bool = False
    trained: float = 0

    @property
    def failed(self) -> bool:
        """Whether the trial ended with an error. A trial whose loss diverged counts as a result, not as an error."""
        return bool(self.outcome and self.outcome.state == "FAILED" and self.outcome.reason != "diverged")

    @property
    def can_win(self) -> bool:
        """Whether the trial may decide the winner: it has a score and was trained to its last epoch, or only the time budget
        stopped it.
        """
        ended = self.outcome
        return bool(ended and (ended.state == "DONE" or (ended.reason == BUDGET and ended.best_epoch > 0)))


class CellSearch:
    """One search of a cell, and its finals. `make(cell, hyperparameters, seed, phase, search)` builds a `Trial`.

    `number`: which of the cell's searches this is, from 0. `count(trial)`: its parameters, None if only its end will tell.
    """

    def __init__(
        self,
        cell: Cell,
        space: Space,
        make: Callable[..., Trial],
        number: int = 0,
        count: Callable[[Trial], Counts | None] = lambda trial: None,
    ):
        self.cell, self.number, self.make, self._count = cell, number, make, count
        self.seed = space.seed + SEEDS_PER_SEARCH * number
        self.budget: Budget = space.budget
        self.in_flight = space.in_flight
        dimensions = space.dimensions_of(space.entry(cell.method))
        self.study = open_study(dimensions, self.budget, self.seed, cell)
        self.brackets = Brackets(self.budget, space.recipe.epochs, self.study.limit)
        # Mean of a search trial if ASHA stops as many as it is meant to.
        self.asha_epochs = self.brackets.mean_epochs(self.in_flight)
        self.search: list[TrialEntry] = []
        self.finals: list[TrialEntry] = []
        # The best configuration's first trial, once `choose_winner` has found the search to be over.
        self.winner: TrialEntry | None = None
        # Whether the time budget has ended the search.
        self.ended_early = False
        # Finals that were trained before an ended search was resumed.
        self._former: list[TrialEntry] = []
        # Number of configurations whose result the study was told.
        self._told = 0
        # The first `num_ended` search trials have all ended. `_rungs` has those that reached a rung, by bracket and epoch. Both
        # are kept up to date so that a decision does not have to go through all trials.
        self.num_ended = 0
        self._rungs: dict[tuple[int, int], list[RungScore]] = {}
        self._recount()

    @property
    def key(self) -> SearchKey:
        return self.cell, self.number

    @property
    def entries(self) -> list[TrialEntry]:
        return self.search + self.finals

    @property
    def configurations(self) -> list[list[TrialEntry]]:
        """For each configuration of the search, its trials that were started so far: one per search seed."""
        return [self._seeds(i) for i in range(self.study.num_asked)]

    @property
    def planned(self) -> int:
        """The number of search trials that the budget provides: configurations times search seeds."""
        return self.study.limit * self.budget.search_seeds

    @property
    def num_running(self) -> int:
        """The number of trials, finals included, that were asked for and have not ended."""
        return sum(entry.outcome is None for entry in self.search[self.num_ended :] + self.finals)

    @property
    def num_startable(self) -> int:
        """How many further trials may be started now.

        Search trial i has to wait until trials 0 to i - `Space.in_flight` have ended, so the number can be negative after an
        earlier trial was opened again.
        """
        if self.winner is not None:
            return self.budget.final_seeds - len(self.finals)
        if self.ended_early:
            # After an early end, a cell without any trial that can win still gets one more.
            return int(not self.num_running and not self._candidates and len(self.search) < self.planned)
        return min(self.planned, self.num_ended + self.in_flight) - len(self.search)

    @property
    def searched(self) -> bool:
        """Whether the search is over: all its trials have ended, and no more will be started."""
        if self.num_ended < len(self.search):
            return False
        return len(self.search) >= self.planned or (self.ended_early and bool(self._candidates))

    @property
    def finished(self) -> bool:
        if not self.searched or any(entry.outcome is None for entry in self.finals):
            return False
        return self.winner is None or len(self.finals) == self.budget.final_seeds

    def end(self, entry: TrialEntry, outcome: Outcome) -> None:
        """Enter the outcome of a trial. Call `choose_winner` afterwards: this may have been the last trial of the search."""
        entry.outcome = outcome
        self._count_ended()

    def choose_winner(self) -> None:
        """Choose the winner if the search is over and has none: the configuration with the best mean validation score.

        The mean is over those seeds of the configuration whose trial can win. Configurations with more such seeds rank above
        all with fewer, since a mean over a lucky subset of the seeds would be too high. Ties go to fewer trained parameters in a
        search for two objectives, then to the lower learning rate, then to the earlier configuration. Finals from before the
        search was resumed are kept if they train the same winner.
        """
        if self.winner is None and self.searched:
            tried = [[e for e in seeds if e.can_win] for seeds in self.configurations]
            best = min(filter(None, tried), key=self._rank, default=None)
            if best:
                self.winner = best[0]
                self.finals += self._former_finals(self.winner)

    def _rank(self, seeds: Sequence[TrialEntry]) -> tuple[float, ...]:
        """Return the key by which configurations are sorted, the best first, from the trials of one that can win."""
        first = seeds[0]
        multi, counts = self.budget.search == "multi", first.outcome.counts if first.outcome else None
        trained = counts.trained if multi and counts else 0
        return (-len(seeds), -_mean(seeds), trained, first.trial.lr, first.number)

    @property
    def lacks_candidate(self) -> bool:
        """Whether no trial of the cell can win so far."""
        return not self._candidates

    @property
    def _candidates(self) -> list[TrialEntry]:
        return [entry for entry in self.search if entry.can_win]

    def _former_finals(self, winner: TrialEntry) -> list[TrialEntry]:
        """Return the completed finals of this winner from before the search was resumed, up to the first missing seed."""
        done = [e for e in self._former if e.outcome and e.outcome.state == "DONE"]
        same = {e.trial.seed: e for e in done if e.trial.hyperparameters == winner.trial.hyperparameters}
        found: list[TrialEntry] = []
        while (seed := self.seed + self.budget.search_seeds + len(found)) in same:
            found.append(same[seed])
        return found

    def resume_search(self) -> None:
        """Resume a search that the time budget had ended.

        Trials that the budget stopped are open again. No proposal and no decision of ASHA has used them, so the search goes on
        as if it had never been ended.
        """
        stopped = [e for e in self.search if e.outcome and e.outcome.reason == BUDGET]
        self.ended_early = False
        if stopped or len(self.search) < self.planned:
            for entry in stopped:
                entry.outcome = None
            self._former, self.finals, self.winner = self._former + self.finals, [], None
            self._recount()

    def _recount(self) -> None:
        """Recompute `num_ended` and the trials at the rungs, after trials that had ended were opened again."""
        self.num_ended = 0
        self._rungs = {(i, epoch): [] for i, bracket in enumerate(self.brackets.all) for epoch in bracket.rungs}
        self._count_ended()

    def _count_ended(self) -> None:
        while self.num_ended < len(self.search) and self.search[self.num_ended].outcome:
            entry = self.search[self.num_ended]
            bracket = self.brackets.of_trial[entry.number]
            for epoch in self.brackets.all[bracket].rungs:
                self._rungs[bracket, epoch] += self._reached(entry, epoch)
            self.num_ended += 1

    def next(self) -> TrialEntry | None:
        """Add the next trial to the cell and return it; None if a running trial has to end first or nothing is left to start."""
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
        """Add a trial that is in the ledger, and return its entry. Raises ValueError for one that cannot be.

        That is a final while the search is not over, or one more trial than the budget provides.
        """
        if trial.phase == "final":
            self.choose_winner()
            if self.winner is None:
                raise ValueError(f"asks for a final of {self.cell}, whose search is not over")
            entry = TrialEntry(trial, len(self.finals))
            self.finals.append(entry)
            return entry
        if len(self.search) == self.planned:
            raise ValueError(f"asks for more trials of {self.cell} than its budget has")
        if len(self.search) % self.budget.search_seeds == 0:
            self._tell(len(self.search))
            self.study.replay({name: trial.hyperparameters[name] for name in self.study.names})
        return self._add(trial)

    def reopen_failed(self) -> None:
        """Train failed trials again when a sweep is continued, since the cause of the failure may have been removed.

        Once the cell has finals, only failed finals are opened again: another result in the search could change the winner.
        """
        for entry in self.finals if self.finals else self.search:
            if entry.failed:
                entry.outcome = None
        self._recount()

    def stops(self, entry: TrialEntry, progress: Progress) -> bool:
        """Return whether ASHA stops this trial at this epoch. Finals, and trials without a score so far, are never stopped."""
        if entry.trial.phase == "final" or not (progress.has_best or progress.diverged):
            return False
        bracket = self.brackets.of_trial[entry.number]
        if (bracket, progress.epoch) not in self._rungs:
            return False
        others = self._others(entry, bracket, progress.epoch)
        return self.brackets.all[bracket].stops(progress.epoch, progress.best_score, others)

    def _others(self, entry: TrialEntry, bracket: int, epoch: int) -> list[float]:
        """Return the best scores up to the rung `epoch` of the earlier trials that this one is compared with.

        With two objectives these train no more parameters than it does, because larger ones would have most of the smaller ones
        stopped. If its number of parameters is not known, there are none.
        """
        judges = max(0, entry.number - self.in_flight + 1)
        known = list(self._rungs[bracket, epoch])
        for late in self.search[self.num_ended : judges]:
            if self.brackets.of_trial[late.number] == bracket:
                known += self._reached(late, epoch)
        return [
            score
            for number, score, trained in known
            if number < judges and trained <= entry.trained  # false for NaN
        ]

    def _reached(self, entry: TrialEntry, epoch: int) -> list[RungScore]:
        """Return the trial with its score at a rung, [] if it did not reach it."""
        score = entry.curve.best_at(epoch)
        return [] if score is None else [(entry.number, score, entry.trained)]

    def _tell(self, number: int) -> None:
        """Tell the study the results, in order, of all configurations that the proposal of trial `number` may depend on."""
        known = max(0, number - self.in_flight + 1) // self.budget.search_seeds
        for configuration in range(self._told, known):
            self.study.tell(configuration, *aggregate_seeds(self._seeds(configuration)))
            self._told += 1

    def _seeds(self, configuration: int) -> list[TrialEntry]:
        """Return the trials of one configuration (one per search seed) that were started so far."""
        seeds = self.budget.search_seeds
        return self.search[configuration * seeds : (configuration + 1) * seeds]

    def _enter(self, hyperparameters: dict[str, Scalar], seed: int) -> TrialEntry:
        return self._add(self.make(self.cell, hyperparameters, seed, "search", self.number))

    def _add(self, trial: Trial) -> TrialEntry:
        entry = TrialEntry(trial, len(self.search))
        if self.budget.search == "multi":
            counts = self._count(trial)
            entry.trained = counts.trained if counts else math.nan
        self.search.append(entry)
        return entry

    def _final(self, winner: TrialEntry) -> TrialEntry:
        seed = self.seed + self.budget.search_seeds + len(self.finals)
        trial = self.make(self.cell, winner.trial.hyperparameters, seed, "final", self.number)
        entry = TrialEntry(trial, len(self.finals))
        self.finals.append(entry)
        return entry


def aggregate_seeds(seeds: Sequence[TrialEntry]) -> tuple[Outcome, dict[int, float]]:
    """Combine the ended trials of one configuration (one per seed) into its outcome and its best scores by epoch, both means.

    The state is the worst of the trials (`WORST`). The scores end with the last epoch that all of the trials reported.
    """
    ends = [entry.outcome for entry in seeds if entry.outcome]
    assert len(ends) == len(seeds) > 0
    state = min((end.state for end in ends), key=WORST.index)
    return replace(ends[0], state=state, best_score=_mean(seeds)), mean_curve([entry.curve for entry in seeds])


def _mean(seeds: Sequence[TrialEntry]) -> float:
    return fmean(entry.outcome.best_score for entry in seeds if entry.outcome)


def stopped(last: Progress, reason: str = "asha") -> Outcome:
    """Return the outcome of a trial that was stopped after this report, by ASHA or by the time budget (`reason`)."""
    return Outcome(
        state="STOPPED", reason=reason, epochs=last.epoch, best_epoch=last.best_epoch, best_score=last.best_score
    )
