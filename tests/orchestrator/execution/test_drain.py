"""Signals: the first one is noted, later ones change nothing but a second Ctrl-C, and child processes do not get them."""

import os
import signal
import subprocess
import sys

import pytest

from orchestrator.execution import drain as drain_module
from orchestrator.execution.drain import Drain, StartInterrupted, shielded


class Ended(BaseException):
    pass


@pytest.fixture
def drain():
    drain = Drain("the command")
    with drain.listening():
        yield drain


@pytest.mark.parametrize(
    ("sent", "noted", "code", "told"),
    [
        (signal.SIGTERM, signal.SIGTERM, 75, "SIGTERM: "),
        (signal.SIGHUP, signal.SIGTERM, 75, "SIGHUP: "),
        (signal.SIGINT, signal.SIGINT, 130, "Ctrl-C: "),
    ],
)
def test_a_first_signal_is_noted_told_by_its_name_and_says_the_exit_code(drain, sent, noted, code, told, capfd):
    assert drain.signal is None
    assert not drain.due
    signal.raise_signal(sent)
    assert (drain.signal, drain.code) == (noted, code)
    assert drain.notice.startswith(f"{told}no trial is started any more")
    assert capfd.readouterr().err.startswith(f"{told}ends once results are stored")
    assert not drain.due


def test_more_signals_change_nothing(drain):
    for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGHUP, signal.SIGTERM):
        signal.raise_signal(number)
    assert drain.code == 75


@pytest.mark.parametrize("first", [signal.SIGTERM, signal.SIGINT])
def test_ctrl_c_after_a_first_signal_ends_the_process_at_once(drain, first, monkeypatch):
    def ended(code):
        raise Ended(code)

    monkeypatch.setattr(drain_module.os, "_exit", ended)
    signal.raise_signal(first)
    with pytest.raises(Ended, match="130"):
        signal.raise_signal(signal.SIGINT)


def test_running_epochs_have_a_deadline(drain, monkeypatch):
    monkeypatch.setitem(drain_module.PATIENCE, signal.SIGTERM, -1.0)
    signal.raise_signal(signal.SIGTERM)
    assert drain.due


def test_a_background_job_whose_shell_ignores_ctrl_c_is_interrupted_all_the_same():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        drain = Drain("")
        with drain.listening():
            signal.raise_signal(signal.SIGINT)
        assert drain.code == 130
    finally:
        signal.signal(signal.SIGINT, before)


def test_the_handlers_before_come_back_and_an_ignored_hangup_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        handler = signal.getsignal(signal.SIGTERM)
        drain = Drain("")
        with drain.listening():
            assert signal.getsignal(signal.SIGTERM) != handler
            signal.raise_signal(signal.SIGHUP)
            assert drain.signal is None
        assert signal.getsignal(signal.SIGTERM) == handler
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)])
def test_a_signal_interrupts_the_start_of_ray(drain, sent, code):
    with pytest.raises(StartInterrupted), drain.starting_ray():
        signal.raise_signal(sent)
    assert drain.code == code
    with pytest.raises(StartInterrupted), drain.starting_ray():
        pytest.fail("Ray was started after a signal")


def test_a_signal_that_ray_handles_while_it_starts_counts_as_ours(drain):
    def start_ray():
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(number))
        signal.raise_signal(signal.SIGTERM)

    with pytest.raises(StartInterrupted), drain.starting_ray():
        start_ray()
    assert drain.code == 75
    signal.raise_signal(signal.SIGTERM)  # the handler is ours again


def test_the_handlers_are_ours_after_ray_has_started(drain):
    with drain.starting_ray():
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.raise_signal(signal.SIGTERM)
    assert drain.code == 75


CHILD = """
import signal, subprocess, sys
if sys.argv[1:]:
    subprocess.run([sys.executable, "-c", sys.argv[1]])
blocked = signal.pthread_sigmask(signal.SIG_BLOCK, [])
print(sorted(s.name for s in blocked))
"""


def test_children_and_their_children_do_not_get_the_signals_and_this_process_does():
    with shielded():
        process = subprocess.run([sys.executable, "-c", CHILD, CHILD], capture_output=True, text=True, check=True)
    assert process.stdout.splitlines() == ["['SIGHUP', 'SIGINT', 'SIGTERM']"] * 2
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == set()
    drain = Drain("")
    with drain.listening():
        os.kill(os.getpid(), signal.SIGTERM)
        assert drain.code == 75
