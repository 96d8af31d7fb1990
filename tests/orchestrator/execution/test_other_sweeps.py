"""Drivers that share a cluster: how many devices each may have, and what they tell."""

import itertools
import logging

import pytest

from orchestrator.execution.other_sweeps import LOOK_SECONDS, OtherSweeps, fair_limit
from trainables.worker.mailbox import Needs


def gpus(wanted, held):
    return Needs("GPU", wanted, held)


class Scene:
    """A driver beside others on a cluster of two GPUs. `others`: their needs by the names of their mailboxes."""

    def __init__(self, **others):
        self.now, self.others, self.told = 0.0, others, []
        self.sweeps = OtherSweeps("GPU", self.exchange, lambda kind: 2, lambda: self.now)

    def exchange(self, needs):
        self.told.append(needs)
        return dict(self.others)

    def look(self, held, wanted=2):
        self.now += LOOK_SECONDS
        assert self.sweeps.is_due
        return self.sweeps.look(held, wanted)


def test_a_driver_without_all_its_devices_says_once_for_which_sweeps_it_waits(caplog):
    caplog.set_level(logging.INFO)
    scene = Scene()

    def told(held):
        caplog.clear()
        assert scene.look(held) is None
        return caplog.messages

    assert told(0) == [], "it has the cluster for itself"
    scene.others["theirs-1234 of ann@head, sweep-b-0"] = gpus(2, 2)
    assert told(2) == []
    assert told(0) == ["has 0 of 2 devices and waits for others that use the cluster, too: theirs-1234 of ann@head"]
    assert told(0) == []
    scene.others["more-5678 of bob@login, sweep-c-0"] = None
    assert told(1)[0].endswith("too: more-5678 of bob@login; theirs-1234 of ann@head")
    scene.others["on cores of eve@login, sweep-d-0"] = Needs("CPU", 9, 9)
    assert told(1) == []


def test_it_tells_its_own_needs_and_does_not_ask_all_the_time():
    scene = Scene()
    assert not scene.sweeps.is_due
    scene.look(1, 2)
    assert scene.told == [gpus(2, 1)]
    assert not scene.sweeps.is_due


def test_a_driver_gives_devices_to_one_that_lacks_some_and_says_so_once(caplog):
    caplog.set_level(logging.INFO)
    scene = Scene(**{"theirs of ann@head, b": gpus(2, 0)})
    assert [scene.look(2), scene.look(2)] == [1, 1]
    assert caplog.messages == [
        "keeps 1 of its 2 devices, since others lack some of their share of the cluster: theirs of ann@head"
    ]
    scene.others["theirs of ann@head, b"] = gpus(2, 1)
    assert scene.look(1, 1) is None
    scene.others["theirs of ann@head, b"] = None
    assert scene.look(2) is None, "it does not say what it needs, so it may have stopped"


@pytest.mark.parametrize(
    ("own", "others", "devices", "limit"),
    [
        ((8, 8), [(8, 0)], 8, 4),
        ((8, 8), [(2, 0)], 8, 6),
        ((8, 8), [(2, 2)], 8, None),
        ((8, 8), [(8, 0), (1, 0)], 8, 4),
        ((8, 8), [(8, 0), (8, 0)], 8, 4),
        ((4, 4), [(8, 2), (8, 1)], 8, 3),
        ((8, 4), [(8, 4)], 8, None),
        ((3, 3), [(8, 5)], 8, None),
        ((3, 3), [(8, 1)], 8, 5),
        ((1, 1), [(1, 0)], 1, 1),
        ((2, 2), [(2, 0), (2, 0)], 2, 1),
        ((3, 3), [(3, 0)], 3, 2),
    ],
)
def test_no_sweep_has_more_than_a_fair_share_while_others_lack_some(own, others, devices, limit):
    assert fair_limit(gpus(*own), [gpus(*each) for each in others], devices) == limit


@pytest.mark.parametrize("devices", [1, 2, 3, 8, 13])
def test_drivers_that_come_one_after_the_other_end_with_fair_shares_and_stay_there(devices):
    for wants in itertools.product((1, 2, 5, 20), repeat=3):
        held = [0, 0, 0]
        for arrived in (1, 2, 3):
            seen = []
            for _ in range(8):
                # Each gives up what it has to, and then free devices are taken, the last one first.
                now = [gpus(wanted, has) for wanted, has in zip(wants[:arrived], held, strict=False)]
                for i, needs in enumerate(now):
                    limit = fair_limit(needs, now[:i] + now[i + 1 :], devices)
                    held[i] = held[i] if limit is None else min(held[i], limit)
                for i in reversed(range(arrived)):
                    held[i] += min(wants[i] - held[i], devices - sum(held))
                seen.append(tuple(held))
            assert seen[-1] == seen[-2], "they go on taking devices from each other"
        assert sum(held) == min(devices, sum(wants))
        assert all(has >= min(wanted, devices // 3) for wanted, has in zip(wants, held, strict=True))
