"""The exit codes of the command line, by which cluster schedulers decide on requeueing a job, and the exceptions for them."""

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
    """SIGTERM or SIGHUP arrived while no trials were being trained (during training, the epochs are finished first).

    Exit code 75; the same command continues.
    """


class EnvironmentUnfit(Exception):
    """This machine lacks something: a GPU, disk space, write permission for a folder. Exit code 4."""


class ClusterLost(Exception):
    """The connection to Ray's cluster was lost during the sweep. Exit code 7; the same command continues."""


def preempt_on_signals() -> None:
    """Install a handler that raises Preempted at SIGTERM, and at SIGHUP unless that is ignored, as under nohup."""

    def preempt(number: int, frame: FrameType | None) -> None:
        raise Preempted

    for each in (signal.SIGTERM, signal.SIGHUP):
        if each != signal.SIGHUP or signal.getsignal(each) is not signal.SIG_IGN:
            signal.signal(each, preempt)
