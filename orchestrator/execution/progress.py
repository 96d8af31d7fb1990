"""The progress display of a sweep: on a terminal a live one with the cells that run, else one log line a minute.

It uses only the snapshots of the cells, which were taken under the controller's lock, and never the sweep itself.
"""

from __future__ import annotations

import logging
import textwrap
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta

from rich.console import Console, RenderableType
from rich.containers import Renderables
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from orchestrator.execution.cell_table import cell_lines
from orchestrator.execution.time_left import WorkRate, time_left
from orchestrator.lost_outputs import outputs_may_be_lost
from orchestrator.search.snapshots import CellSnapshot
from orchestrator.search.trial_names import TrialNames
from search_spaces.redaction import printable

log = logging.getLogger(__name__)

REFRESH_SECONDS = 0.5
SUMMARY_SECONDS = 60.0
# Lines of the terminal that are left to the log lines above the display.
LOG_LINES = 4
LEGEND = (
    "best: highest validation score of a search trial that was not stopped early; constant: score of always giving the same "
    "answer. Time left: at least 8 of 10 such ranges should hold the true time, by the spread of the trials' times so far."
)


class ProgressDisplay:
    """Draws progress and cells on a terminal, or logs a summary if there is no terminal.

    `constants`: validation scores of constant predictions, by task and number of the search. `rate` measures the run, `slots` is
    the number of trials that the devices train at once, `earlier` are the seconds that earlier runs took. `load` says how busy
    the devices are, `notice` what a signal has set off; both may return "".
    """

    def __init__(
        self,
        names: TrialNames,
        console: Console,
        *,
        constants: Mapping[tuple[str, int], float] | None = None,
        rate: WorkRate | None = None,
        slots: int = 1,
        earlier: float = 0.0,
        load: Callable[[], str] = str,
        notice: Callable[[], str] = str,
    ):
        self._names, self._console, self._constants = names, console, constants or {}
        self._rate, self._slots, self._earlier = rate or WorkRate(), slots, earlier
        self._load, self._notice = load, notice
        self._started, self._drawn = time.monotonic(), 0.0
        self._live = Live(console=console, auto_refresh=False, transient=False) if console.is_terminal else None

    def start(self, found: Sequence[CellSnapshot]) -> None:
        """Draw for the first time, on a terminal."""
        if self._live:
            with outputs_may_be_lost():
                self._live.start()
            self.draw(found)

    @property
    def is_due(self) -> bool:
        """Whether it is time to draw again: after 0.5 s on a terminal, 60 s in a log."""
        return time.monotonic() - self._drawn > (REFRESH_SECONDS if self._live else SUMMARY_SECONDS)

    def draw(self, found: Sequence[CellSnapshot]) -> None:
        self._drawn = time.monotonic()
        if self._live:
            with outputs_may_be_lost():
                self._live.update(self._screen(found), refresh=True)
        else:
            log.info("%s; %s", counts_text(found), self._times(found))

    def close(self, found: Sequence[CellSnapshot] = ()) -> None:
        """Draw `found`, if given, for the last time, and leave the terminal clean: the cursor visible, on a line of its own."""
        if self._live:
            with outputs_may_be_lost():
                if found:
                    self._live.update(self._screen(found), refresh=True)
                self._live.stop()

    def _screen(self, found: Sequence[CellSnapshot]) -> Renderables:
        """Return progress, times, devices and notice, then as many cells as fit, then the legend if there is room for it."""
        width, height = self._console.size
        ended, total = sum(cell.num_ended for cell in found), sum(cell.total for cell in found)
        told = [self._times(found), self._devices(found)]
        bar = Table.grid()  # a bar of its own ends without a new line
        bar.add_row(ProgressBar(total=max(1, total), completed=ended, width=width))
        head: list[RenderableType] = [
            Text(
                f"{printable(self._names.space)}: {counts_text(found)}", style="bold", no_wrap=True, overflow="ellipsis"
            ),
            bar,
            *(Text(line) for text in filter(None, told) for line in textwrap.wrap(text, width)),
            *(Text(line, style="bold yellow") for line in textwrap.wrap(self._notice(), width)),
            Text(""),
        ]
        legend = [Text(""), *(Text(line, style="dim") for line in textwrap.wrap(LEGEND, width))]
        room = max(3, height - LOG_LINES - len(head))
        lines = cell_lines(found, self._names, self._constants, width, room)
        fits = len(lines) + len(legend) <= room
        return Renderables([*head, *lines, *(legend if fits else [])])

    def _times(self, found: Sequence[CellSnapshot]) -> str:
        """Return how long this run has taken and the range of what is left, with the times of day at which it would end."""
        spent = f"{duration_text(time.monotonic() - self._started)} so far"
        if self._earlier >= 1:
            spent += f" (and {duration_text(self._earlier)} in earlier runs)"
        if self._notice():
            return spent  # the sweep ends before its end
        estimate = time_left(found, self._rate.concurrency, self._slots)
        if estimate is None:
            return f"{spent}; time left: known after the first trials"
        # What was trained since the last report is not in the estimate.
        since = max(0.0, time.time() - self._rate.last_report)
        low, high = (max(0.0, seconds - since) for seconds in estimate)
        now = datetime.now()
        first, last = (clock_text(now + timedelta(seconds=seconds), now) for seconds in (low, high))
        end = f"at about {first}" if first == last else f"between {first} and {last}"
        return f"{spent}; {range_text(low, high)} left, done {end}" if high else spent

    def _devices(self, found: Sequence[CellSnapshot]) -> str:
        """Return how many trials run, how busy this machine is, and the largest memory of a process that trains."""
        running = [trial for cell in found for trial in cell.running]
        most = max((trial.memory_mib for trial in running), default=0.0)
        trained = f"up to {most / 1024:.1f} GiB in a training process" if most else ""
        return "; ".join(filter(None, [self._load(), trained]))


def counts_text(found: Sequence[CellSnapshot]) -> str:
    """Return the numbers of trials, such as "25 of 40 trials ended (9 stopped early, 1 failed), 2 running"."""
    stopped, failed = sum(cell.stopped for cell in found), sum(cell.failed for cell in found)
    parts = [f"{number} {what}" for number, what in ((stopped, "stopped early"), (failed, "failed")) if number]
    ended, total = sum(cell.num_ended for cell in found), sum(cell.total for cell in found)
    how = f" ({', '.join(parts)})" if parts else ""
    return f"{ended} of {total} trials ended{how}, {sum(len(cell.running) for cell in found)} running"


def duration_text(seconds: float) -> str:
    """Return a duration in at most two units: "45 s", "12 min", "3 h 10 min", "2 days 5 h"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    days, hours = divmod(round(seconds / 3600), 24)
    return f"{days} days {hours} h" if hours else f"{days} days"


def range_text(low: float, high: float) -> str:
    """Return a range of durations, such as "12 to 20 min", "50 min to 3 h" or "up to 2 min"."""
    first, last = duration_text(low), duration_text(high)
    if first == last:
        return f"about {last}"
    if low < 90 <= high:  # seconds beside minutes would say more than is known
        first = f"{round(low / 60)} min"
    if first.startswith("0 "):
        return f"up to {last}"
    number, _, unit = first.partition(" ")
    return f"{number} to {last}" if unit == last.partition(" ")[2] else f"{first} to {last}"


def clock_text(moment: datetime, now: datetime) -> str:
    """Return a time of day, with the day if it is another one than today."""
    if moment.date() == now.date():
        return f"{moment:%H:%M}"
    return f"{moment:%a %H:%M}" if moment - now < timedelta(days=6) else f"{moment:%d %b %H:%M}"
