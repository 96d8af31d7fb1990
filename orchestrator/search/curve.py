"""What a search keeps of the epochs that a trial reported: the ledger has the rest."""

from __future__ import annotations

from array import array
from statistics import fmean

from search_spaces.records import Progress


class Curve:
    """The best validation score up to each reported epoch, in percent points, the last report, and the seconds of all epochs.

    It holds 8 bytes per epoch, because a sweep keeps one of these for every trial.
    """

    __slots__ = ("_best", "_first", "last", "seconds")

    def __init__(self) -> None:
        self.last: Progress | None = None
        self.seconds = 0.0
        self._best = array("d")
        self._first = 0  # the first epoch with a best score (see `Progress`), 0 if none has one

    def __len__(self) -> int:
        return len(self._best)

    def append(self, progress: Progress) -> None:
        self.last = progress
        self.seconds += progress.seconds
        self._best.append(progress.best_score)
        if progress.has_best and not self._first:
            self._first = len(self)

    def best_at(self, epoch: int) -> float | None:
        """Return the best validation score up to this epoch.

        None if the trial did not reach the epoch, or if no epoch counts so far and it did not diverge there.
        """
        if epoch > len(self) or self.last is None:
            return None
        diverged = self.last.diverged and epoch == len(self)  # a trial ends when it diverges
        return self._best[epoch - 1] if diverged or 0 < self._first <= epoch else None


def mean_curve(curves: list[Curve]) -> dict[int, float]:
    """Return the mean of the best scores after each epoch that all trials reported, from the first that counts in the first."""
    shortest, first = min(map(len, curves)), curves[0]._first
    epochs = range(first, shortest + 1) if first else ()
    return {epoch: fmean(curve._best[epoch - 1] for curve in curves) for epoch in epochs}
