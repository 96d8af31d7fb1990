"""The live table: numbers per cell, and a drawing that names every cell."""

import io

from rich.console import Console

from orchestrator.execution.progress import ProgressDisplay
from tests.fixtures.fakes import curve, drive, end_of, make_space, open_sweep


def test_rows_count_what_the_sweep_did(tmp_path):
    sweep = drive(make_space(), tmp_path)
    for row in sweep.snapshot():
        search = sweep.searches[row.cell, 0]
        assert row.phase == "finished"
        assert row.done + row.stopped == row.total == len(search.entries)
        assert row.best == search.winner.outcome.best_score
        assert row.epochs == sum(len(e.curve) for e in search.entries)


def test_the_table_names_each_cell_and_its_running_trials(tmp_path):
    sweep = open_sweep(make_space(), tmp_path)
    trial = sweep.next_trial()
    points = curve(trial)
    for point in points[:-1]:
        sweep.record(trial.id, point)
    sweep.record(trial.id, points[-1], *end_of(trial, points[-1]))
    sweep.next_trial()
    console = Console(file=io.StringIO(), force_terminal=True, width=120, color_system=None)
    display = ProgressDisplay(sweep.space.name, sweep.snapshot(), console)
    display.close(sweep.snapshot())
    drawn = console.file.getvalue()
    assert all(str(cell) in drawn for cell, _ in sweep.searches)
    assert f"{points[-1].best_score:.2f}" in drawn
    assert "1 of 36 trials ended, 1 running" in drawn
