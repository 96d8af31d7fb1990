"""Counts this process's training steps and batches of evaluations, which tells slow work from a process that hangs.

The count belongs to the process, not to a trial: the device worker sends it to the driver with each ping.
"""

from __future__ import annotations

_count = 0


def record_activity() -> None:
    """Count one more step or batch. Only the training thread calls this."""
    global _count
    _count += 1


def activity_count() -> int:
    """Return the number of steps and batches so far. May be called from any thread."""
    return _count
