"""Log lines of a sweep: cell, configuration and score, never an id, and each line once."""

import io
import logging

import pytest
from rich.console import Console

from orchestrator.execution.event_messages import EventMessages
from orchestrator.log_lines import set_up_logging
from search_spaces.events import SweepInterrupted, TrialAsked, TrialEnded, WinnerChosen
from search_spaces.history import SweepHistory
from search_spaces.language import Budget
from search_spaces.records import Outcome
from tests.fixtures.fakes import drive, make_space, open_sweep


def test_a_sweep_is_told_by_cells_configurations_and_scores(tmp_path, caplog):
    sweep = drive(make_space(models=("m",)), tmp_path)
    history = SweepHistory(sweep._ledger.records)
    messages = EventMessages(sweep.space, history.trials, {"t": "accuracy", "u": "accuracy"})
    with caplog.at_level(logging.INFO, logger="orchestrator"):
        for record in sweep._ledger.records:
            messages.log(record.event)
    lines = caplog.messages
    assert len(lines) == 36 + 4, "one per trial and winner"
    assert not [line for line in lines for trial_id in history.trials if trial_id in line]
    search = sweep.searches[sweep.space.cells[1], 0]
    first, winner = search.search[0], search.winner
    ended = f"t/adapter lr={{}} batch_size={first.trial.batch_size} r={first.trial.settings['r']}: {first.outcome.best_score:.2f}"
    assert any(
        line.startswith(ended.split("{}")[0]) and line.split(" ", 2)[2].startswith(ended.split("{} ")[1])
        for line in lines
    )
    chosen = [line for line in lines if line.startswith("t/adapter: search finished, best lr=")]
    assert len(chosen) == 1
    assert chosen[0].endswith(f" with {winner.outcome.best_score:.2f}; next: 2 finals on fresh seeds")
    finals = [line for line in lines if line.startswith("t/adapter final seed=")]
    assert len(finals) == 2
    assert all(": test accuracy " in line and ", validation " in line for line in finals)
    stopped = [e for s in sweep.searches.values() for e in s.entries if e.outcome.state == "STOPPED"]
    assert len([line for line in lines if "stopped by ASHA after epoch" in line]) == len(stopped) > 0


@pytest.mark.parametrize(
    ("outcome", "text"),
    [
        (
            {"state": "DONE", "reason": "epochs", "epochs": 3, "best_epoch": 1, "best_score": 54.0},
            "54.00 (epoch 1 of 8)",
        ),
        (
            {"state": "DONE", "reason": "patience", "epochs": 6, "best_epoch": 1, "best_score": 54.0},
            "54.00 (epoch 1 of 8), no better epoch until epoch 6",
        ),
        (
            {"state": "STOPPED", "reason": "budget", "epochs": 2, "best_epoch": 2, "best_score": 54.0},
            "54.00 (epoch 2 of 8), stopped by the time budget after epoch 2",
        ),
        ({"state": "FAILED", "reason": "diverged", "epochs": 2, "diverged": True}, "no score yet, diverged in epoch 2"),
        ({"state": "FAILED", "reason": "boom", "epochs": 0}, "FAILED: boom"),
    ],
)
def test_a_line_says_how_a_trial_ended(tmp_path, caplog, outcome, text):
    sweep = open_sweep(make_space(budget=Budget(trials=4, search_seeds=2)), tmp_path)
    trial = sweep.next_trial()
    history = SweepHistory(sweep._ledger.records)
    with caplog.at_level(logging.INFO, logger="orchestrator"):
        EventMessages(sweep.space, history.trials, {}).log(TrialEnded(id=trial.id, outcome=Outcome(**outcome)))
    assert caplog.messages == [
        f"t/full seed=0 lr={'1e-5'} batch_size={trial.batch_size}: {text}".replace("1e-5", lr_of(trial))
    ]


def lr_of(trial):
    return {1e-5: "1e-5", 1e-4: "1e-4", 1e-3: "1e-3"}[trial.lr]


@pytest.mark.parametrize("terminal", [True, False])
def test_a_log_line_has_one_prefix_and_levels_only_from_warnings_on(terminal, capsys):
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    out = io.StringIO()
    try:
        set_up_logging(Console(file=out, force_terminal=terminal, width=200, color_system=None))
        logging.getLogger("orchestrator.driver").info("sweep %s", "tickets")
        logging.getLogger("orchestrator.driver").warning("disk")
    finally:
        root.handlers[:], root.level = before, level
        logging.captureWarnings(False)
    text = out.getvalue() if terminal else capsys.readouterr().err
    lines = [line.rstrip() for line in text.splitlines()]
    assert [line.partition(" ")[2] for line in lines] == ["sweep tickets", "WARNING: disk"]
    assert all(len(line.partition(" ")[0]) == len("17:05:12") for line in lines)


def test_a_signal_is_told_with_what_happens_next(tmp_path, caplog):
    messages = EventMessages(make_space(), {}, {}, lambda: "Ctrl-C: ends soon")
    with caplog.at_level(logging.INFO, logger="orchestrator"):
        messages.log(SweepInterrupted(reason="SIGINT"))
        messages.log(TrialAsked(id="x", trial=open_sweep(make_space(), tmp_path).next_trial()))
    assert caplog.messages == ["Ctrl-C: ends soon"]


def test_winners_of_several_searches_say_which(tmp_path, caplog):
    sweep = drive(make_space(tasks=("t",), budget=Budget(trials=2, final_seeds=1, searches=2)), tmp_path)
    messages = EventMessages(sweep.space, SweepHistory(sweep._ledger.records).trials, {})
    with caplog.at_level(logging.INFO, logger="orchestrator"):
        for record in sweep._ledger.records:
            if isinstance(record.event, WinnerChosen):
                messages.log(record.event)
    assert {line.partition(": ")[0] for line in caplog.messages} == {
        *("t/full, search 1", "t/full, search 2", "t/adapter, search 1", "t/adapter, search 2")
    }
