"""A terminal or pipe that is gone takes the output away and nothing else: a sweep ends with its work done and its exit code."""

import fcntl
import os
import pty
import subprocess
import sys
import termios

import pytest

from orchestrator.lost_outputs import drop_lost_outputs, outputs_may_be_lost
from tests.fixtures.cli_process import ROOT

# What a driver does when its terminal is closed, as short as possible: its display goes on, it works, and it ends with its code.
DRIVER = """
import logging, sys, time
from pathlib import Path
from rich.console import Console
from orchestrator.execution.drain import Drain
from orchestrator.execution.progress import ProgressDisplay
from orchestrator.log_lines import set_up_logging
from orchestrator.search.trial_names import TrialNames
from tests.fixtures.fakes import make_space, open_sweep

sweep = open_sweep(make_space(), Path(sys.argv[1]))
sweep.next_trial()
found = sweep.snapshot()
console = Console(stderr=True)
set_up_logging(console)
display, drain = ProgressDisplay(TrialNames(make_space()), console), Drain("the command")
with drain.listening():
    display.start(found)
    print("ready", flush=True)
    while drain.signal is None:
        time.sleep(0.01)
    for _ in range(3):
        display.draw(found)
        logging.warning("still at work")
    display.close(found)
    print("the report")
    (Path(sys.argv[1]) / "report").write_text("done")
    drain.end_process(drain.code)
"""


def test_closing_the_terminal_ends_a_driver_with_its_work_done_and_its_code(tmp_path):
    master, slave = pty.openpty()

    def own_terminal():
        fcntl.ioctl(slave, termios.TIOCSCTTY, 0)

    child = subprocess.Popen(
        [sys.executable, "-c", DRIVER, tmp_path],
        cwd=ROOT,
        stdin=slave,
        stdout=slave,
        stderr=slave,
        start_new_session=True,
        preexec_fn=own_terminal,
    )
    os.close(slave)
    seen = b""
    while b"ready" not in seen:
        seen += os.read(master, 4096)
    os.close(master)
    assert child.wait(30) == 75
    assert (tmp_path / "report").read_text() == "done"


@pytest.mark.parametrize(("error", "code"), [("ValueError('x')", 2), ("OSError('x')", 4), ("KeyboardInterrupt", 130)])
def test_an_error_without_a_reader_keeps_its_exit_code(error, code):
    program = f"""
from orchestrator.command_line import exit_code_of
import sys
def command():
    sys.stdin.read()
    print("a line")
    raise {error}
sys.exit(exit_code_of(command))
"""
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    buffered = {**os.environ, "PYTHONUNBUFFERED": ""}
    child = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, env=buffered, **pipes)
    child.stdout.close()
    child.stderr.close()
    child.stdin.close()
    assert child.wait(30) == code


def test_outputs_that_are_read_stay_and_other_errors_are_raised():
    assert not drop_lost_outputs()
    with pytest.raises(OSError, match="disk"), outputs_may_be_lost():
        raise OSError("disk")
