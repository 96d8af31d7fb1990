"""Signals: the first one starts a drain, in which no trial is started any more and running epochs may end. A second Ctrl-C ends
the process at once.

Schedulers (`timeout`, systemd, Slurm) and terminals send a signal to all processes of a job. Only the driver may act on it, since
its drain needs Ray and the trials; `shielded` therefore starts child processes with these signals blocked. They end with the
driver: Ray's processes are killed at its shutdown, and by the reaper.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, NoReturn

from orchestrator.exit_codes import INTERRUPTED, PREEMPTED
from orchestrator.lost_outputs import drop_lost_outputs
from search_spaces.redaction import clean_line

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# Seconds for which running epochs may go on after a first signal. SIGTERM is usually followed by SIGKILL after 30 s.
PATIENCE = {signal.SIGINT: 120.0, signal.SIGTERM: 20.0}


class StartInterrupted(BaseException):
    """A signal arrived while Ray was being started. Nothing has to be finished first."""


class Drain:
    """Handles SIGINT, SIGTERM and SIGHUP. `signal` is the first one (SIGTERM also for SIGHUP), None before it.

    The handler only stores the signal, since it may interrupt a ledger write; those who wait look at `signal` and `due`. After a
    first signal, further ones are ignored, except a second Ctrl-C. What happens is told by the progress display while trials are
    trained, else at once. `command` is printed as the command that continues the sweep.
    """

    def __init__(self, command: str):
        self._command = command
        self._deadline = float("inf")
        self._starting = self._training = False
        self.signal: signal.Signals | None = None
        self._received = ""  # the name of the signal that was sent

    @property
    def due(self) -> bool:
        """Whether running epochs had enough time to end."""
        return time.monotonic() > self._deadline

    @property
    def notice(self) -> str:
        """What happens after a first signal, with the seconds that are left to running epochs; "" before it."""
        if self.signal is None:
            return ""
        left = max(0.0, self._deadline - time.monotonic())
        return (
            f"{self._received}: no trial is started any more. Running trials may finish their epoch, within {left:.0f} s; then "
            f"the report is written. Ctrl-C now stops at once: these epochs are lost, what was reported is kept."
        )

    @property
    def code(self) -> int:
        """The exit code of a sweep that a signal ended before it was finished."""
        return INTERRUPTED if self.signal is signal.SIGINT else PREEMPTED

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Handle the signals within the block, except a SIGHUP that is ignored, as under nohup."""
        before = {number: signal.getsignal(number) for number in SIGNALS}
        self.listen()
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def listen(self) -> None:
        """Install the handlers, also again after Ray has installed its own."""
        for number in SIGNALS:
            # Shells start background jobs with SIGINT ignored, which must not keep `kill -INT` from them.
            if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._on)

    @contextmanager
    def starting_ray(self) -> Iterator[None]:
        """Within the block, in which Ray starts, a first signal raises StartInterrupted."""
        self._starting = True
        try:
            if self.signal is not None:
                raise StartInterrupted
            yield
        except SystemExit:  # raised by Ray's own handler of SIGTERM, which it installs when it starts
            self._note(signal.SIGTERM)
            raise StartInterrupted from None
        finally:
            self._starting = False
            self.listen()

    @contextmanager
    def training(self) -> Iterator[None]:
        """Within the block, in which trials are trained, a first signal is told by those who look at `signal`."""
        self._training = True
        try:
            yield
        finally:
            self._training = False

    def end_process(self, code: int) -> NoReturn:
        """End this process without Ray's shutdown, which makes SIGTERM fatal: a second one would change the exit code.

        The reaper ends Ray's processes.
        """
        drop_lost_outputs()
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)

    def _on(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGHUP:
            drop_lost_outputs()  # the terminal may be closed: every later write to it would fail
        if self.signal is not None and number == signal.SIGINT:
            say_at_once(f"stopped at once; what was reported is kept. Continue with: {self._command}")
            os._exit(INTERRUPTED)
        if self.signal is None:
            self._note(signal.Signals(number))
            if self._starting:
                raise StartInterrupted
            if not self._training:
                say_at_once(
                    f"{self._received}: ends once results are stored and the report is written; Ctrl-C now stops at once"
                )

    def _note(self, number: signal.Signals) -> None:
        if self.signal is None:
            self.signal = signal.SIGINT if number is signal.SIGINT else signal.SIGTERM
            self._received = "Ctrl-C" if number is signal.SIGINT else number.name
        self._deadline = time.monotonic() + PATIENCE[self.signal]


def say_at_once(text: str) -> None:
    """Write a line to standard error past all buffers and locks, as is needed in a signal handler and before `os._exit`.

    On a terminal it starts below what the progress display has drawn, and makes the cursor visible, which the display hides.
    """
    start = "\r\n\x1b[?25h" if os.isatty(2) else ""
    with suppress(OSError):
        os.write(2, f"{start}{clean_line(text)}\n".encode())


@contextmanager
def shielded() -> Iterator[None]:
    """Start child processes within the block: they, and their own children, do not receive SIGINT, SIGTERM and SIGHUP.

    Threads of this process that already run still receive the signals, and Python calls their handlers in the main thread.
    """
    before: Any = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
