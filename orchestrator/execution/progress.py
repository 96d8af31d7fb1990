"""The progress display of a sweep: on a terminal a live table with a row per cell, else log lines.

It uses only the snapshots of the cells, which were taken under the controller's lock, and never the sweep itself.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from orchestrator.search.cell import CellSnapshot
from search_spaces.events import (
    Event,
    SearchesEndedEarly,
    SearchesResumed,
    SweepInterrupted,
    TrialEnded,
    WinnerChosen,
)
from search_spaces.redaction import printable

log = logging.getLogger(__name__)

REFRESH_SECONDS = 0.5
SUMMARY_SECONDS = 60.0


class ProgressDisplay:
    """Draws a table of the cells on a terminal, or logs a summary if there is no terminal.

    `found` has the cells' progress at the start; the time left is estimated from what is trained after it.
    """

    def __init__(self, title: str, found: Sequence[CellSnapshot], console: Console):
        self._title = title
        self._started, self._drawn, self._epochs_before = time.monotonic(), 0.0, _epochs(found)
        table = self._table(found)
        self._live = Live(table, console=console, auto_refresh=False, transient=False) if console.is_terminal else None
        if self._live:
            self._live.start()

    @property
    def is_due(self) -> bool:
        """Whether it is time to draw again: after 0.5 s on a terminal, 60 s in a log."""
        return time.monotonic() - self._drawn > (REFRESH_SECONDS if self._live else SUMMARY_SECONDS)

    def draw(self, found: Sequence[CellSnapshot]) -> None:
        self._drawn = time.monotonic()
        if self._live:
            self._live.update(self._table(found), refresh=True)
        else:
            log.info(self._summary(found))

    def close(self, found: Sequence[CellSnapshot]) -> None:
        if self._live:
            self._live.update(self._table(found), refresh=True)
            self._live.stop()

    def _summary(self, found: Sequence[CellSnapshot]) -> str:
        ended, total = sum(r.done + r.stopped + r.failed for r in found), sum(r.total for r in found)
        return f"{ended} of {total} trials ended, {sum(r.running for r in found)} running{self._time_left(found)}"

    def _time_left(self, found: Sequence[CellSnapshot]) -> str:
        """Return a phrase with epochs per second and minutes left; "" before 5 epochs of this run and the first ended trial."""
        seconds = time.monotonic() - self._started
        new = _epochs(found) - self._epochs_before
        ended, total = sum(r.done + r.stopped + r.failed for r in found), sum(r.total for r in found)
        if new < 5 or not ended:
            return ""
        left = (total - ended) * (_epochs(found) / ended) * seconds / new
        return f", {new / seconds:.2f} epochs/s, about {left / 60:.0f} min left"

    def _table(self, found: Sequence[CellSnapshot]) -> Table:
        table = Table(
            title=Text(printable(self._title)),
            caption=self._summary(found),
            title_justify="left",
            caption_justify="left",
        )
        for name in ("cell", "phase", "done", "running", "stopped", "failed", "best val", "epochs"):
            table.add_column(name, justify="left" if name in ("cell", "phase") else "right")
        for r in found:
            best = "" if r.best is None else f"{r.best:.2f}"
            numbers = (f"{r.done}/{r.total}", str(r.running), str(r.stopped), str(r.failed), best, str(r.epochs))
            table.add_row(Text(printable(str(_named(r, found)))), r.phase, *numbers)
        return table


def log_event(event: Event) -> None:
    """Log one line for an event that matters to the user: ends, winners, interruptions and the time budget."""
    if isinstance(event, TrialEnded):
        outcome = event.outcome
        cached = " (from another sweep)" if event.cached else ""
        score = f", best {outcome.best_score:.2f} at epoch {outcome.best_epoch}" if outcome.best_epoch else ""
        text = "trial %s %s: %s after %d epochs%s%s"
        log.info(text, event.id, outcome.state, outcome.reason, outcome.epochs, score, cached)
    elif isinstance(event, WinnerChosen):
        log.info("%s: search done, winner %s", event.cell, event.id)
    elif isinstance(event, SweepInterrupted):
        log.info("%s: finishing the running epochs", event.reason)
    elif isinstance(event, SearchesEndedEarly):
        text = "--budget %s: the searches end after %.1f min; the finals will need at most %.1f more"
        log.info(text, event.budget, event.spent / 60, event.needed / 60)
    elif isinstance(event, SearchesResumed):
        log.info("the searches that a time budget had ended go on")


def _named(snapshot: CellSnapshot, found: Sequence[CellSnapshot]) -> str:
    """Return the cell, with the number of its search, counted from 1, if cells have several."""
    several = any(each.search for each in found)
    return f"{snapshot.cell}, search {snapshot.search + 1}" if several else str(snapshot.cell)


def _epochs(found: Sequence[CellSnapshot]) -> int:
    return sum(r.epochs for r in found)
