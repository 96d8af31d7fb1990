"""ASHA's decision, and that it agrees with the reference implementation where both are defined."""

import random

import pytest
from ray.tune.schedulers import AsyncHyperBandScheduler

from orchestrator.search.asha import Bracket


def bracket(**changes):
    return Bracket(**{"grace": 2, "reduction": 2, "min_values": 3, "epochs": 20, **changes})


@pytest.mark.parametrize(
    ("changes", "rungs"),
    [
        ({}, [2, 4, 8, 16]),
        ({"epochs": 16}, [2, 4, 8]),
        ({"epochs": 2}, []),
        ({"grace": 1, "reduction": 3, "epochs": 27}, [1, 3, 9]),
        ({"grace": 30}, []),
    ],
)
def test_rungs_lie_at_powers_below_the_last_epoch(changes, rungs):
    assert bracket(**changes).rungs == rungs


def test_the_worse_half_stops_and_ties_go_on():
    assert bracket().stops(2, 10.0, [20.0, 30.0, 5.0])
    assert not bracket().stops(2, 20.0, [20.0, 30.0, 5.0])


def test_nobody_stops_between_rungs_or_before_enough_values():
    assert not bracket().stops(3, 0.0, [20.0, 30.0, 40.0])
    assert not bracket().stops(2, 0.0, [20.0, 30.0])


class Stub:
    def __init__(self, name):
        self.trial_id = name


@pytest.mark.parametrize("reduction", [2, 3, 4])
def test_decisions_equal_the_reference_when_trials_come_one_after_the_other(reduction):
    draw = random.Random(reduction)
    ours = bracket(reduction=reduction, min_values=1, epochs=30)
    theirs = AsyncHyperBandScheduler(
        time_attr="epoch", metric="score", mode="max", grace_period=2, reduction_factor=reduction, max_t=30
    )
    curves: list[list[float]] = []
    for number in range(40):
        trial, curve = Stub(str(number)), []
        theirs.on_trial_add(None, trial)
        for epoch in range(1, 30):
            curve.append(max([*curve[-1:], draw.random()]))
            others = [c[epoch - 1] for c in curves if len(c) >= epoch]
            stops = ours.stops(epoch, curve[-1], others)
            assert stops == (theirs.on_trial_result(None, trial, {"epoch": epoch, "score": curve[-1]}) == "STOP")
            if stops:
                break
        curves.append(curve)
