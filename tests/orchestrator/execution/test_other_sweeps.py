"""A driver that waits for devices names the sweeps that hold them, once."""

import logging

from orchestrator.execution.other_sweeps import LOOK_SECONDS, OtherSweeps, mailbox_name


def test_a_driver_without_all_its_devices_says_once_for_which_sweeps_it_waits(caplog):
    caplog.set_level(logging.INFO)
    now, own = [0.0], mailbox_name("mine", "sweep-a-0")
    names = [own]
    others = OtherSweeps(own, lambda: names, lambda: now[0])

    def told(num_workers):
        now[0] += LOOK_SECONDS
        caplog.clear()
        others.look(num_workers, 2)
        return caplog.messages

    assert told(0) == [], "it has the cluster for itself"
    names.append("theirs-1234 of ann@head, sweep-b-0")
    assert told(2) == []
    assert told(0) == ["has 0 of 2 devices and waits for others that use the cluster, too: theirs-1234 of ann@head"]
    assert told(0) == []
    names.append("more-5678 of bob@login, sweep-c-0")
    assert told(1)[0].endswith("too: more-5678 of bob@login; theirs-1234 of ann@head")


def test_it_does_not_ask_the_cluster_all_the_time():
    asked = []
    others = OtherSweeps("own", lambda: asked.append(1) or [], lambda: 1.0)
    others.look(0, 2)
    assert not asked
