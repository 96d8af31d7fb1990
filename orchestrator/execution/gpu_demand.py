"""Waits for the GPUs without which a sweep does not start, while the cluster's autoscaler sees how many it could use."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from orchestrator.exit_codes import EnvironmentUnfit

log = logging.getLogger(__name__)

# A cloud needs minutes for a machine with GPUs, and as long again if its first zone has none left.
LONGEST_WAIT = 1800.0
LOOK_SECONDS = 1.0


def number_of_gpus(nodes: list[Mapping[str, float]]) -> int:
    """Return the number of GPUs of a cluster. `nodes`: the resources of each node."""
    return int(sum(node.get("GPU", 0) for node in nodes))


def await_gpus(
    least: int,
    most: int,
    nodes: Callable[[], list[Mapping[str, float]]],
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Return once the cluster has `least` GPUs, used by others or not; its autoscaler is asked for `most` meanwhile.

    `nodes` returns the resources of each node. Raises EnvironmentUnfit after LONGEST_WAIT.
    """
    found = number_of_gpus(nodes())
    if found >= least:
        return
    end, told = clock() + LONGEST_WAIT, -1
    with _asked_for(most):
        while found < least:
            if found != told:
                log.info(
                    "the cluster has %d of the %d GPUs with which this sweep starts; its autoscaler is asked for %d, and waited "
                    "for at most %.0f minutes",
                    found,
                    least,
                    most,
                    LONGEST_WAIT / 60,
                )
                told = found
            if clock() >= end:
                raise EnvironmentUnfit(
                    f"--gpus {least}..{most}: the cluster has {found} after {LONGEST_WAIT / 60:.0f} minutes; add nodes, or give "
                    "a smaller first number"
                )
            sleep(LOOK_SECONDS)
            found = number_of_gpus(nodes())


@contextmanager
def _asked_for(gpus: int) -> Iterator[None]:
    """Let so many groups of one GPU each wait for a place: an autoscaler starts nodes for them.

    While trials are trained, those of Ray Tune do that. Ray's `request_resources` does not suit: what one driver requests
    replaces what another has, and stays when a driver is killed, so that a cloud's machines would run on, and cost.
    """
    from ray.util import placement_group, remove_placement_group

    groups: list[Any] = []
    try:
        groups += (placement_group([{"GPU": 1}]) for _ in range(gpus))
        yield
    finally:
        for group in groups:
            remove_placement_group(group)
