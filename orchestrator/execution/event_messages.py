"""Log lines for the events of a sweep that matter to its user: ends of trials, winners, interruptions and the time budget."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from orchestrator.search.trial_names import TrialNames
from search_spaces.events import (
    DevicesShared,
    Event,
    SearchesEndedEarly,
    SearchesResumed,
    SweepInterrupted,
    TrialEnded,
    WinnerChosen,
)
from search_spaces.history import TrialHistory
from search_spaces.language import Space
from search_spaces.records import BUDGET, Outcome, Trial

log = logging.getLogger(__name__)


class EventMessages:
    """Logs events. `trials` has the trials of the sweep by id, `metrics` the metric that is the score of each task.

    `interrupted` returns what happens after a signal, "" if that is told elsewhere.
    """

    def __init__(
        self,
        space: Space,
        trials: Mapping[str, TrialHistory],
        metrics: Mapping[str, str],
        interrupted: Callable[[], str] = str,
    ):
        self._names, self._budget = TrialNames(space), space.budget
        self._trials, self._metrics, self._interrupted = trials, metrics, interrupted

    def log(self, event: Event) -> None:
        """Log one line for the event if it matters to the user."""
        if isinstance(event, TrialEnded):
            trial = self._trials[event.id].trial
            metric = self._metrics.get(trial.cell.task, "")
            level = logging.WARNING if event.outcome.state in ("FAILED", "INVALID") else logging.INFO
            cached = " (result of another sweep)" if event.cached else ""
            log.log(level, "%s: %s%s", self._names.trial(trial), outcome_text(trial, event.outcome, metric), cached)
        elif isinstance(event, WinnerChosen):
            self._log_winner(self._trials[event.id])
        elif isinstance(event, DevicesShared):
            at_once = "1 trial" if event.slots == 1 else f"{event.slots} trials"
            log.info(
                "Ray runs; %s at once, %d per device; the first ones start once models and tracking store are open",
                at_once,
                event.per_device,
            )
        elif isinstance(event, SweepInterrupted):
            log.warning("%s", self._interrupted() or f"{event.reason}: no trial is started any more")
        elif isinstance(event, SearchesEndedEarly):
            text = "--budget %s: the searches end after %.1f min; the finals will need at most %.1f more"
            log.info(text, event.budget, event.spent / 60, event.needed / 60)
        elif isinstance(event, SearchesResumed):
            log.info("the searches that a time budget had ended go on")

    def _log_winner(self, winner: TrialHistory) -> None:
        trial, seeds = winner.trial, self._budget.final_seeds
        score = f" with {winner.outcome.best_score:.2f}" if winner.outcome and self._budget.search_seeds == 1 else ""
        log.info(
            "%s: search finished, best %s%s; next: %d final%s on fresh seeds",
            self._names.search(trial.search_key),
            self._names.configuration(trial),
            score,
            seeds,
            "s" * (seeds != 1),
        )


def outcome_text(trial: Trial, outcome: Outcome, metric: str) -> str:
    """Return how a trial ended, such as "54.00 (epoch 1 of 3)": the best validation score, and the epoch that had it.

    A final's score on the test split, which is `metric`, comes first. A trial that ended before its last epoch says why.
    """
    if outcome.state == "INVALID" or (outcome.state == "FAILED" and outcome.reason != "diverged"):
        return f"{outcome.state}: {outcome.reason}"
    last = trial.recipe.epochs
    score = f"{outcome.best_score:.2f} (epoch {outcome.best_epoch} of {last})" if outcome.best_epoch else "no score yet"
    if metric in outcome.metrics:
        score = f"test {metric} {outcome.metrics[metric]:.2f}, validation {score}"
    why = {
        "asha": f"stopped by ASHA after epoch {outcome.epochs}",
        BUDGET: f"stopped by the time budget after epoch {outcome.epochs}",
        "patience": f"no better epoch until epoch {outcome.epochs}",
        "diverged": f"diverged in epoch {outcome.epochs}",
    }.get(outcome.reason, "")
    if outcome.diverged and not why:
        why = f"diverged in epoch {outcome.epochs}"
    return f"{score}, {why}" if why else score
