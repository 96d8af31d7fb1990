"""ASHA's decision, that it agrees with the reference implementation where both are defined, and Hyperband's brackets."""

import random
from collections import Counter

import pytest
from ray.tune.schedulers import AsyncHyperBandScheduler

from orchestrator.search.asha import Bracket, Brackets
from search_spaces.language import Budget


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


@pytest.mark.parametrize(
    ("changes", "rungs"),
    [
        ({"brackets": 1}, [[2, 4, 8, 16]]),
        ({"brackets": 3}, [[2, 4, 8, 16], [4, 8, 16], [8, 16]]),
        ({"brackets": 20}, [[2, 4, 8, 16], [4, 8, 16], [8, 16], [16], []]),
        ({"brackets": 3, "grace": 12}, [[12], []]),
        ({"brackets": 3, "grace": 20}, [[]]),
    ],
)
def test_brackets_begin_later_and_later_and_one_at_most_stops_nothing(changes, rungs):
    assert [each.rungs for each in Brackets(Budget(**changes), 20, 10).all] == rungs


def test_brackets_get_as_many_configurations_as_in_hyperband():
    """Li et al. 2018, table 1: R = 81, factor 3."""
    of_trial = Brackets(Budget(brackets=5, grace=1, reduction=3), 81, 81 + 34 + 15 + 8 + 5).of_trial
    shares = Counter(of_trial)
    assert [shares[number] for number in range(5)] == pytest.approx([81, 34, 15, 8, 5], abs=3)


def test_all_seeds_of_a_configuration_are_in_one_bracket():
    one, three = (Brackets(Budget(brackets=3, search_seeds=seeds), 20, 12).of_trial for seeds in (1, 3))
    assert three == [number for number in one for _ in range(3)]


@pytest.mark.parametrize("in_flight", [1, 2, 5])
def test_a_trial_can_be_stopped_once_enough_of_its_bracket_ended_before_it_was_asked_for(in_flight):
    one, three = (Brackets(Budget(brackets=number), 20, 30) for number in (1, 3))
    assert one.can_stop(in_flight) == [trial >= in_flight + 2 for trial in range(30)]
    for trial, (number, can_stop) in enumerate(zip(three.of_trial, three.can_stop(in_flight), strict=True)):
        assert can_stop == (three.of_trial[: max(0, trial - in_flight + 1)].count(number) >= 3)


def test_a_bracket_too_small_to_stop_a_trial_costs_whole_trials():
    assert Brackets(Budget(), 8, 8).mean_epochs(2) == 4.0  # 2 + 2/2 + 4/4
    assert Brackets(Budget(), 8, 4).mean_epochs(2) == 8.0
    assert Brackets(Budget(brackets=3), 8, 8).of_trial == [0, 1, 2, 0, 1, 0, 2, 0]
    assert Brackets(Budget(brackets=3), 8, 8).mean_epochs(2) == (4 * 4.0 + 2 * 8 + 2 * 8) / 8
