"""Names the sweeps of other drivers on the same cluster, for which this one waits while they hold devices.

A driver's mailbox is an actor whose name tells the sweep and its owner: "SWEEP of USER@HOST, RUN". Ray is not used here.
"""

from __future__ import annotations

import getpass
import logging
import socket
import time
from collections.abc import Callable, Iterable

log = logging.getLogger(__name__)

# Seconds between two looks at the cluster; a worker starts within them if a device is free and the machine is not busy.
LOOK_SECONDS = 10.0


def mailbox_name(sweep: str, run: str) -> str:
    """Return the name of the mailbox of a sweep. `run` is unique in the cluster."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        user = "unknown"
    return f"{sweep or 'a sweep'} of {user}@{socket.gethostname()}, {run}"


class OtherSweeps:
    """Tells once for which sweeps this one waits, and again if they change.

    `own`: the name of this driver's mailbox. `names`: returns those of all mailboxes of the cluster.
    """

    def __init__(self, own: str, names: Callable[[], Iterable[str]], clock: Callable[[], float] = time.monotonic):
        self._own, self._names, self._clock = own, names, clock
        self._next_look = clock() + LOOK_SECONDS
        self._told: list[str] = []

    @property
    def is_due(self) -> bool:
        return self._clock() >= self._next_look

    def look(self, num_workers: int, num_wanted: int) -> None:
        """Tell, if a look is due, what holds the devices if there are fewer workers than wanted."""
        if not self.is_due:
            return
        self._next_look = self._clock() + LOOK_SECONDS
        if num_workers >= num_wanted:
            return
        others = sorted(name.rpartition(", ")[0] for name in self._names() if name != self._own)
        if others and others != self._told:
            log.info(
                "has %d of %d devices and waits for others that use the cluster, too: %s",
                num_workers,
                num_wanted,
                "; ".join(others),
            )
        self._told = others
