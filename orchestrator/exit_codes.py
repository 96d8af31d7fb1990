"""Exit codes, an interface that schedulers requeue on, and the errors that carry them to the command line."""

from __future__ import annotations

import signal
from types import FrameType

COMPLETE = 0
BAD_INPUT = 2
TOO_MANY_FAILURES = 3
ENVIRONMENT = 4
DAMAGED_STATE = 5
HELD = 6
CLUSTER_LOST = 7
PREEMPTED = 75
INTERRUPTED = 130


class Preempted(BaseException):
    """SIGTERM outside the training loop, which drains instead. Exit code 75; the same command continues."""


class EnvironmentUnfit(Exception):
    """Something this machine lacks: a GPU, disk, a folder that can be written. Exit code 4."""


class ClusterLost(Exception):
    """Ray's cluster went away under the sweep. Exit code 7; the same command continues."""


def preempt_on_sigterm() -> None:
    """Raise Preempted at a SIGTERM. To be called again after Ray, which installs a handler of its own, has ended."""

    def preempt(number: int, frame: FrameType | None) -> None:
        raise Preempted

    signal.signal(signal.SIGTERM, preempt)
