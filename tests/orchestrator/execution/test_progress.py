"""The progress display: it fits the terminal, shows progress and what runs before anything else, and is left clean."""

import io
import logging
import os
import random
import re
import subprocess
import sys
from datetime import datetime, timedelta

import pytest
from rich.console import Console

from orchestrator.execution.device_load import gpu_text, memory_text
from orchestrator.execution.progress import ProgressDisplay, clock_text, duration_text, range_text
from orchestrator.search.trial_names import TrialNames, value_text
from search_spaces.language import Budget, method
from search_spaces.records import Trial
from tests.fixtures.fakes import curve, drive, end_of, make_space, open_sweep

MODELS = ("google-bert/bert-base-uncased", "FacebookAI/roberta-base", "sentence-transformers/all-MiniLM-L6-v2")
TASKS = tuple(f"task_{i}" for i in range(6))


def screen(sweep, width: int, height: int, **options) -> list[str]:
    """The lines that the display draws on a terminal of this size."""
    console = Console(file=io.StringIO(), force_terminal=True, width=width, height=height, color_system="standard")
    display = ProgressDisplay(TrialNames(sweep.space), console, **options)
    console.print(display._screen(sweep.snapshot()))
    # Without colours there would be no bar.
    return re.sub(r"\x1b\[[0-9;]*m", "", console.file.getvalue()).rstrip("\n").split("\n")


def begun(space, root, reports: int):
    """A sweep in which this many reports were entered, of trials in random order, at most three at a time."""
    sweep, running, draw = open_sweep(space, root), {}, random.Random(1)
    while reports:
        trial = sweep.next_trial() if len(running) < 3 else "wait"
        if isinstance(trial, Trial):
            running[trial.id] = (trial, 0)
            continue
        trial, epoch = running.pop(draw.choice(sorted(running)))
        progress = curve(trial)[epoch]
        ended = end_of(trial, progress) if epoch + 1 == trial.recipe.epochs else (None, None)
        if sweep.record(trial.id, progress, *ended):
            running[trial.id] = (trial, epoch + 1)
        reports -= 1
    return sweep


def test_snapshots_count_what_the_sweep_did(tmp_path):
    sweep = drive(make_space(), tmp_path)
    for cell in sweep.snapshot():
        search = sweep.searches[cell.cell, 0]
        assert cell.phase == "finished"
        assert (cell.search_left, cell.finals_left, cell.running) == (0, 0, ())
        assert cell.num_ended == cell.total == len(search.entries)
        assert cell.best == search.winner.outcome.best_score
        assert cell.epochs == sum(len(e.curve) for e in search.entries)
        assert sum(cell.search_seconds) == sum(len(e.curve) for e in search.search)  # an epoch takes one second
        assert set(cell.whole_seconds + cell.final_seconds) == {8.0}


@pytest.mark.parametrize(("width", "height"), [(80, 24), (120, 40), (40, 12)])
@pytest.mark.parametrize("reports", [1, 300])
def test_a_sweep_of_many_cells_fits_and_shows_all_that_run(tmp_path, width, height, reports):
    sweep = begun(make_space(models=MODELS, tasks=TASKS), tmp_path, reports)
    lines = screen(sweep, width, height, constants={(task, 0): 50.0 for task in TASKS}, notice=lambda: "Ctrl-C: ends")
    assert len(lines) <= height - 3, "a few lines are left to the log"
    assert max(map(len, lines)) <= width
    assert lines[0].startswith("fake: ")
    assert lines[2] == "0 s so far", "after a signal the time left means nothing"
    found = sweep.snapshot()
    running = [trial.trial for cell in found for trial in cell.running]
    assert running
    if width >= 80:
        assert "Ctrl-C: ends" in lines
        text = "\n".join(lines)
        names = TrialNames(sweep.space)
        assert all(names.configuration(trial) in text for trial in running)
    assert "more cells: " in lines[-1]
    hidden = int(lines[-1].split()[0])
    rows = sum("50.00" in line for line in lines)
    assert width < 80 or hidden + rows == len(found)


def test_a_small_sweep_has_a_row_per_cell_with_what_runs_beside_the_constant_prediction(tmp_path):
    sweep = begun(make_space(), tmp_path, 30)
    lines = screen(sweep, 120, 40, constants={("t", 0): 61.25, ("u", 0): 50.0})
    rows = {tuple(line.split()[:2]): line for line in lines}
    for cell in sweep.snapshot():
        row = rows[cell.cell.task, cell.cell.method]
        assert f"{cell.num_ended}/{cell.total}" in row
        assert ("61.25" if cell.cell.task == "t" else "50.00") in row
        assert ("-" if cell.best is None else f"{cell.best:.2f}") in row
        for trial in cell.running[:1]:
            assert f"lr={value_text(trial.trial.lr)} " in row
            assert f"epoch {trial.epochs + 1} of 8" in row
    assert set(lines[1]) <= {"━", "╺", "╸"}
    assert "model" not in lines[4], "a single model has no column"
    assert lines[2].startswith("0 s so far; ")
    assert lines[-1].endswith("so far."), "the legend is shown where there is room"


def test_searches_and_failures_get_columns_when_there_are_any(tmp_path):
    space = make_space(tasks=("t",), budget=Budget(trials=2, final_seeds=1, searches=2))
    sweep = open_sweep(space, tmp_path)
    sweep.fail(sweep.next_trial().id, "boom")  # nothing runs now, and there is no column for it
    heading = next(line for line in screen(sweep, 120, 40) if "phase" in line)
    assert heading.split() == ["task", "method", "no.", "phase", "ended", "best", "failed"]
    assert "(1 failed)" in screen(sweep, 120, 40)[0]


def test_without_a_terminal_it_logs_plain_lines(tmp_path, caplog):
    sweep = begun(make_space(), tmp_path, 30)
    out = io.StringIO()
    display = ProgressDisplay(TrialNames(sweep.space), Console(file=out))
    with caplog.at_level(logging.INFO, logger="orchestrator"):
        display.start(sweep.snapshot())
        display.draw(sweep.snapshot())
        display.close(sweep.snapshot())
    assert out.getvalue() == ""
    (line,) = caplog.messages
    ended = sum(cell.num_ended for cell in sweep.snapshot())
    assert line == f"{ended} of 36 trials ended, 3 running; 0 s so far; time left: known after the first trials"


def test_the_display_leaves_the_cursor_visible_on_a_line_of_its_own(tmp_path):
    sweep = begun(make_space(methods=(method("full"),)), tmp_path, 3)
    console = Console(file=io.StringIO(), force_terminal=True, width=80, height=24)
    display = ProgressDisplay(TrialNames(sweep.space), console)
    display.close()  # not started: nothing to leave
    assert console.file.getvalue() == ""
    display.start(sweep.snapshot())
    assert console.file.getvalue().startswith("\x1b[?25l")
    display.close(sweep.snapshot())
    assert console.file.getvalue().endswith("\n\x1b[?25h")


SECOND = """
import os, signal
from orchestrator.execution.drain import Drain
drain = Drain("the command")
with drain.listening(), drain.training():
    os.write(2, b"the table\\x1b[?25l")
    signal.raise_signal(signal.SIGINT)
    signal.raise_signal(signal.SIGINT)
"""


def test_a_second_ctrl_c_leaves_the_terminal_clean_and_says_how_to_continue():
    ours, theirs = os.openpty()
    done = subprocess.run([sys.executable, "-c", SECOND], stderr=theirs, check=False)
    os.close(theirs)
    text = os.read(ours, 10_000).decode()
    os.close(ours)
    assert done.returncode == 130
    before, shown, after = text.partition("\x1b[?25h")
    assert before.startswith("the table")
    assert shown
    assert "\n" in before
    assert after.strip() == "stopped at once; what was reported is kept. Continue with: the command"
    assert after.endswith("\n")


def test_a_signal_while_nothing_is_trained_is_told_at_once_and_in_a_pipe_without_control_characters():
    script = SECOND.replace(", drain.training()", "").replace(r'os.write(2, b"the table\\x1b[?25l")', "pass")
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    lines = done.stderr.replace("the table\x1b[?25l", "").splitlines()
    assert lines == [
        "Ctrl-C: ends once results are stored and the report is written; Ctrl-C now stops at once",
        "stopped at once; what was reported is kept. Continue with: the command",
    ]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (89, "89 s"),
        (95, "2 min"),
        (5340, "89 min"),
        (5400, "1 h 30 min"),
        (7200, "2 h"),
        (190_000, "2 days 5 h"),
    ],
)
def test_durations_have_at_most_two_units(seconds, text):
    assert duration_text(seconds) == text


def test_ranges_and_times_of_day_are_short():
    assert range_text(600, 1200) == "10 to 20 min"
    assert range_text(3000, 7500) == "50 min to 2 h 5 min"
    assert range_text(600, 610) == "about 10 min"
    assert [range_text(low, 120) for low in (0, 20, 80)] == ["up to 2 min", "up to 2 min", "1 to 2 min"]
    now = datetime(2026, 11, 27, 23, 0)
    assert clock_text(now + timedelta(minutes=5), now) == "23:05"
    assert clock_text(now + timedelta(hours=2), now) == "Sat 01:00"
    assert clock_text(now + timedelta(days=9), now) == "06 Dec 23:00"


def test_hyperparameters_are_short():
    assert [value_text(v) for v in (1e-3, 3.1623e-5, 0.05, 0.1, 16, "random", 1.0)] == [
        *("1e-3", "3.16e-5", "0.05", "0.1", "16", "random", "1")
    ]


def test_the_load_of_devices_is_read_from_what_the_machine_says():
    assert (
        gpu_text(["97, 40960, 81559", "12, 61440, 81559"]) == "2 GPUs 12 to 97 % busy, memory at most 60.0 of 79.6 GiB"
    )
    assert gpu_text(["97, 40960, 81559"]) == "GPU 97 % busy, memory 40.0 of 79.6 GiB"
    assert gpu_text(["[N/A], [N/A], [N/A]"]) == ""
    assert (
        memory_text("MemTotal:  8388608 kB\nMemFree: 1 kB\nMemAvailable:  4194304 kB\n") == "main memory 4.0 of 8.0 GiB"
    )
    assert memory_text("") == ""
