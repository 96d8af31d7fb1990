"""The progress display of a sweep: on a terminal one live table whose rows are cells, in a log one line per change.

Reads rows that were collected under the controller's lock, and never the sweep itself.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table

from orchestrator.search.cell import CellSearch
from orchestrator.search.sweep import Sweep
from search_spaces.language import Cell

log = logging.getLogger(__name__)

REFRESH_SECONDS = 0.5
SUMMARY_SECONDS = 60.0


@dataclass(frozen=True, kw_only=True)
class CellRow:
    """One line of the table. `best` is a validation score in percent points."""

    cell: Cell
    phase: str
    done: int
    running: int
    stopped: int
    failed: int
    total: int
    best: float | None
    epochs: int


def cell_rows(sweep: Sweep) -> list[CellRow]:
    """Return the numbers of every cell. To be called by the thread that decides for the sweep, or under its lock."""
    return [_row(search) for search in sweep.cells.values()]


class ProgressDisplay:
    """Draws the cells on a terminal, or logs a summary where there is none. `found`: the rows at the beginning."""

    def __init__(self, title: str, found: list[CellRow], console: Console):
        self._title = title
        self._started, self._drawn, self._epochs_before = time.monotonic(), 0.0, _epochs(found)
        table = self._table(found)
        self._live = Live(table, console=console, auto_refresh=False, transient=False) if console.is_terminal else None
        if self._live:
            self._live.start()

    @property
    def is_due(self) -> bool:
        """Whether the last drawing is old enough for another one."""
        return time.monotonic() - self._drawn > (REFRESH_SECONDS if self._live else SUMMARY_SECONDS)

    def draw(self, found: list[CellRow]) -> None:
        self._drawn = time.monotonic()
        if self._live:
            self._live.update(self._table(found), refresh=True)
        else:
            log.info(self._summary(found))

    def close(self, found: list[CellRow]) -> None:
        if self._live:
            self._live.update(self._table(found), refresh=True)
            self._live.stop()

    def _summary(self, found: list[CellRow]) -> str:
        ended, total = sum(r.done + r.stopped + r.failed for r in found), sum(r.total for r in found)
        return f"{ended} of {total} trials ended, {sum(r.running for r in found)} running{self._time_left(found)}"

    def _time_left(self, found: list[CellRow]) -> str:
        """Return an estimate from the trials that ended in this run; nothing before there are a few."""
        seconds = time.monotonic() - self._started
        new = _epochs(found) - self._epochs_before
        ended, total = sum(r.done + r.stopped + r.failed for r in found), sum(r.total for r in found)
        if new < 5 or not ended:
            return ""
        left = (total - ended) * (_epochs(found) / ended) * seconds / new
        return f", {new / seconds:.2f} epochs/s, about {left / 60:.0f} min left"

    def _table(self, found: list[CellRow]) -> Table:
        table = Table(title=self._title, caption=self._summary(found), title_justify="left", caption_justify="left")
        for name in ("cell", "phase", "done", "running", "stopped", "failed", "best val", "epochs"):
            table.add_column(name, justify="left" if name in ("cell", "phase") else "right")
        for r in found:
            best = "" if r.best is None else f"{r.best:.2f}"
            numbers = (f"{r.done}/{r.total}", str(r.running), str(r.stopped), str(r.failed), best, str(r.epochs))
            table.add_row(str(r.cell), r.phase, *numbers)
        return table


def log_record(record: dict[str, Any]) -> None:
    """Log one line for an event that a user follows; nothing for the others."""
    if record["event"] == "ended":
        outcome = record["outcome"]
        cached = " (from another sweep)" if record["cached"] else ""
        score = f", best {outcome['best_score']:.2f} at epoch {outcome['best_epoch']}" if outcome["best_epoch"] else ""
        log.info(
            "trial %s %s: %s after %d epochs%s%s",
            record["id"],
            outcome["state"],
            outcome["reason"],
            outcome["epochs"],
            score,
            cached,
        )
    elif record["event"] == "winner":
        cell = record["cell"]
        log.info("%s/%s/%s: search done, winner %s", cell["model"], cell["task"], cell["method"], record["id"])
    elif record["event"] == "interrupted":
        log.info("%s: finishing the running epochs", record["reason"])
    elif record["event"] == "curtailed":
        text = "--budget %s: the searches end after %.1f min; the finals will need at most %.1f more"
        log.info(text, record["budget"], record["spent"] / 60, record["needed"] / 60)
    elif record["event"] == "extended":
        log.info("the searches that a time budget had ended go on")


def log_records(records: Sequence[dict[str, Any]]) -> None:
    for record in records:
        log_record(record)


def _row(search: CellSearch) -> CellRow:
    states = [entry.outcome.state if entry.outcome else "RUNNING" for entry in search.entries]
    done = [e.outcome.best_score for e in search.search if e.outcome and e.outcome.state == "DONE"]
    finals = search.budget.final_seeds if search.winner or not search.searched else 0
    return CellRow(
        cell=search.cell,
        phase="finished" if search.finished else "finals" if search.searched else "search",
        done=states.count("DONE"),
        running=states.count("RUNNING"),
        stopped=states.count("STOPPED"),
        failed=states.count("FAILED") + states.count("INVALID"),
        total=(len(search.search) if search.curtailed else search.planned) + finals,
        best=max(done, default=None),
        epochs=sum(len(entry.curve) for entry in search.entries),
    )


def _epochs(found: list[CellRow]) -> int:
    return sum(r.epochs for r in found)
