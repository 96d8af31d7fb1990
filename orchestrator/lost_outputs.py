"""Standard output and error that cannot be written any more: their terminal was closed, or who read them has ended.

A sweep goes on without them, or ends with its report, and its exit code stays what it would have been.
"""

from __future__ import annotations

import os
import select
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress


def drop_lost_outputs() -> bool:
    """Let later writes to a lost standard output or error succeed, by sending them to nowhere. Return whether one was lost.

    Child processes inherit that. May be called from a signal handler.
    """
    lost = False
    for stream in (sys.__stdout__, sys.__stderr__):
        with suppress(OSError, ValueError):  # closed, or not a file
            descriptor = stream.fileno() if stream else -1
            if descriptor >= 0 and _is_lost(descriptor):
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, descriptor)
                os.close(nowhere)
                lost = True
    return lost


@contextmanager
def outputs_may_be_lost() -> Iterator[None]:
    """Ignore an error of the block that comes from writing to a lost output, and drop that output."""
    try:
        yield
    except OSError:
        if not drop_lost_outputs():
            raise


def _is_lost(descriptor: int) -> bool:
    """Return whether a write would fail: a terminal that hung up, or a pipe without a reader."""
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    return any(events & (select.POLLERR | select.POLLHUP) for _, events in poll.poll(0))
