"""How the sweeps on one cluster divide its devices, and for which of them this one waits. Ray is not used here.

A driver's mailbox is an actor whose name tells the sweep and its owner: "SWEEP of USER@HOST, RUN". It also tells other drivers
what its own one needs. Each driver computes the shares by itself and ends workers if it has more than its own while others lack
some of theirs.
"""

from __future__ import annotations

import getpass
import logging
import socket
import time
from collections.abc import Callable, Mapping, Sequence

from trainables.worker.mailbox import Needs

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


def fair_limit(own: Needs, others: Sequence[Needs], devices: int) -> int | None:
    """Return how many of the cluster's devices a sweep may have, None if no other one lacks a part of its share.

    A share is max-min fair: no sweep has more than it can use, and the others have equal numbers. What cannot be divided stays
    with those who have it, and a sweep that has a device keeps one.
    """
    level = _level([each.wanted for each in (own, *others)], devices)
    lacking = sum(max(0, min(each.wanted, level) - each.held) for each in others)
    return max(level, own.held - lacking) if lacking else None


def _level(wanted: Sequence[int], devices: int) -> int:
    """Return the largest number of devices that each sweep can have that wants so many, at least 1."""
    left, level = devices, 0
    for number, each in enumerate(sorted(wanted)):
        level = left // (len(wanted) - number)
        if each > level:
            break
        left -= each
    return max(1, level)


class OtherSweeps:
    """Tells once for which sweeps this one waits or to which it gives devices, and again if they change.

    `kind`: of its devices, see `Needs`. `exchange`: tells other drivers the needs of this one, and returns theirs by the names of
    their mailboxes, None where they are not known. `devices`: returns how many devices of a kind the cluster has.
    """

    def __init__(
        self,
        kind: str,
        exchange: Callable[[Needs], Mapping[str, Needs | None]],
        devices: Callable[[str], int],
        clock: Callable[[], float] = time.monotonic,
    ):
        self._kind, self._exchange, self._devices, self._clock = kind, exchange, devices, clock
        self._next_look = clock() + LOOK_SECONDS
        self._told = ""

    @property
    def is_due(self) -> bool:
        return self._clock() >= self._next_look

    def look(self, num_workers: int, num_wanted: int) -> int | None:
        """Return how many devices this sweep may have, with as many as it has and could use; None for any number."""
        self._next_look = self._clock() + LOOK_SECONDS
        own = Needs(self._kind, num_wanted, num_workers)
        found = self._exchange(own)
        others = {name: needs for name, needs in found.items() if needs is None or needs.kind == self._kind}
        known = [needs for needs in others.values() if needs]
        limit = fair_limit(own, known, self._devices(self._kind)) if known else None
        names = "; ".join(sorted(name.rpartition(", ")[0] for name in others))
        if limit is not None and limit < num_workers:
            numbers = f"keeps {limit} of its {num_workers} devices, "
            self._tell(numbers, f"since others lack some of their share of the cluster: {names}")
        elif others and num_workers < num_wanted:
            numbers = f"has {num_workers} of {num_wanted} devices "
            self._tell(numbers, f"and waits for others that use the cluster, too: {names}")
        else:
            self._told = ""
        return limit

    def _tell(self, numbers: str, reason: str) -> None:
        """Tell `numbers` and `reason`, unless the last look had the same reason."""
        if reason != self._told:
            log.info("%s%s", numbers, reason)
        self._told = reason
