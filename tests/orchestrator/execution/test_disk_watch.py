"""The free space of the driver's disks: too little of it stops a sweep before a disk is full, and costs no trial."""

import shutil
from collections import namedtuple

import pytest

from orchestrator.execution.cluster import Share
from orchestrator.execution.disk_watch import MIB, RESERVE, DiskWatch
from orchestrator.execution.tune_runner import LoopCallback
from tests.fixtures.controllers import call, controller_of, epoch, trials_of
from tests.fixtures.fakes import curve, drive, make_space, open_sweep, result
from tests.fixtures.ledger_lines import read

SHARE = Share(devices=2, cpu=1, gpu=0, per_device=3)
SIZE = 10 * MIB


@pytest.fixture
def free(monkeypatch):
    """The free bytes of each disk, by the name of the folder that is asked about; a lot for all others."""
    found = {}
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage(found.get(folder.name, 1 << 40)))
    return found


@pytest.mark.parametrize(("present", "missing"), [(0, 6), (3, 3), (5, 2), (40, 2)])
def test_a_sweep_needs_the_first_checkpoints_and_a_new_one_on_each_device(free, tmp_path, present, missing):
    for number in range(present):
        (tmp_path / "sweep" / "checkpoints" / str(number)).mkdir(parents=True)
    time = iter(range(0, 10_000, 10))
    watch = DiskWatch(tmp_path / "sweep" / "checkpoints", tmp_path / "ray", SHARE, SIZE, clock=lambda: next(time))
    free["sweep"] = RESERVE + missing * SIZE
    assert watch.shortage() == ""
    free["sweep"] -= 1
    assert watch.shortage() == (
        f"the disk of {tmp_path / 'sweep'} has {50 + 10 * missing - 1} MiB free, and the sweep needs {50 + 10 * missing} MiB "
        "there for its next checkpoints and records; free some"
    )


def test_the_disk_of_rays_files_is_watched_too_and_neither_is_asked_all_the_time(free, tmp_path):
    now = [0.0]
    watch = DiskWatch(tmp_path / "sweep" / "checkpoints", tmp_path / "ray", SHARE, 0, clock=lambda: now[0])
    assert watch.shortage() == ""
    free["ray"] = RESERVE - 1
    now[0] = 4.9
    assert watch.shortage() == ""
    now[0] = 5.1
    assert f"the disk of {tmp_path / 'ray'} has 49 MiB free" in watch.shortage()


class Watch:
    def __init__(self):
        self.found = ""

    def shortage(self):
        return self.found


class Quiet:
    is_due, signal, due = False, None, False


def test_a_sweep_stops_before_the_disk_is_full_and_continues_with_every_trial(tmp_path):
    sweep, watch = open_sweep(make_space(), tmp_path / "full"), Watch()
    controller = controller_of(sweep, tmp_path / "full", devices=1, per_device=2)
    loop = LoopCallback(controller, Quiet(), Quiet(), disks=watch)
    orders, _ = controller.serve([call("a")], [])
    first, second = trials_of(orders, "a")
    loop.on_step_end(1, [])
    assert not controller.environment_error
    watch.found = "the disk is almost full"
    loop.on_step_end(2, [])
    loop.on_step_end(3, [])
    assert controller.environment_error == "the disk is almost full"
    _, verdicts = controller.serve([], [epoch(call("a"), first, curve(first)[0])])
    assert verdicts == {("a-p", first.id): False}
    orders, _ = controller.serve([call("a")], [epoch(call("a"), second, curve(second)[0])])
    assert orders == {"a": {"jobs": [], "close": True}}
    events = [record["event"] for record in read(tmp_path / "full" / "sweep")]
    assert events.count("interrupted") == 1
    assert "ended" not in events
    sweep._ledger.close()
    continued = drive(make_space(), tmp_path / "full")
    assert not continued.failures
    assert result(continued) == result(drive(make_space(), tmp_path / "calm"))
