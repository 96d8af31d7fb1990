"""Each verb of `peft-sweep` explains itself, and refuses what is wrong with an exit code and a message, without a traceback."""

import os
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from orchestrator import exit_codes, program
from orchestrator.__main__ import VERBS, console, main, make_parsers
from tests.fixtures.cli_calls import wants

ROOT = Path(__file__).parents[2]
# Loaded by no help text: what these modules import takes longer than the help.
SLOW_MODULES = (
    "orchestrator.run",
    "orchestrator.planning",
    "trainables",
    "reports.build",
    "pandas",
    "numpy",
    "torch",
    "ray",
)


@pytest.fixture
def peft_sweep(calling):
    """Calls `peft-sweep` in an empty folder; returns (exit code, what it wrote to stderr)."""
    return calling(main)


def test_the_verbs_are_at_least_these():
    assert {"run", "plan", "list", "report", "compare", "reproduce"} <= set(VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_every_argument_of_a_verb_has_a_line_of_help(verb):
    parser = make_parsers(verb)[1][verb]
    assert VERBS[verb].HELP
    assert all(action.help for action in parser._actions)


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_prints_its_help(verb, peft_sweep, capsys):
    with pytest.raises(SystemExit) as end:
        main([verb, "--help"])
    assert end.value.code == 0
    assert f"{verb} [-h]" in capsys.readouterr().out
    wants(peft_sweep(verb, "--hepl"), exit_codes.BAD_INPUT, "'--hepl' is no option: did you mean '--help'")


def test_the_help_loads_nothing_slow():
    script = "import sys; from orchestrator.__main__ import make_parsers; make_parsers()[0].format_help(); print(*sys.modules)"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert not [name for name in done.stdout.split() if name.startswith(SLOW_MODULES)]


def test_the_installed_command_is_this_function():
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]
    assert scripts == {program.NAME: "orchestrator.__main__:console"}
    assert callable(console)


def test_the_version_is_that_of_the_project(capsys):
    with pytest.raises(SystemExit):
        main(["--version"])
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    assert capsys.readouterr().out == f"peft-sweep {version}\n"


@pytest.mark.parametrize(
    ("words", "phrases"),
    [
        (("rnu",), ("'rnu' is no verb", "did you mean 'run'")),
        (("quickstart",), ("'quickstart' is a space", "run quickstart")),
        (("tickets.py",), ("'tickets.py' is a space", "run tickets.py")),
        (("--verison",), ("'--verison'", "did you mean '--version'")),
        (("--space", "nsmc", "run"), ("'--space' stands before the verb", "options follow the verb")),
        (("run",), ("no space is given",)),
        (("plan", "quickstrt"), ("'quickstrt' is not known", "did you mean 'quickstart'")),
        (("plan", "quickstart", "--space", "nsmc"), ("two spaces are given",)),
        (("plan", "nothere.py"), ("'nothere.py': there is no such file",)),
        (("plan", "quickstart", "--trials", "0"), ("--trials 0: must be between",)),
        (("list", "space"), ("KIND", "spaces")),
        (("report", "--tracking-uri", "ftp://host"), ("sqlite, http",)),
        (("compare", "a"), ("B",)),
        (("compare", "a", "b", "--tracking-uri", "ftp://host"), ("sqlite, http",)),
        (("reproduce", "nothere", "m/t/l"), ("nothere: there is no sweep", "OUT/SWEEP")),
    ],
)
def test_a_wrong_call_of_a_verb_is_refused(peft_sweep, words, phrases):
    wants(peft_sweep(*words), exit_codes.BAD_INPUT, *phrases)


def test_a_space_is_an_argument_or_an_option_and_the_command_on_record_repeats_the_call(
    peft_sweep, driver, monkeypatch
):
    planned = []
    driver.drive = lambda plan, options: planned.append((plan.space, options.command)) or exit_codes.COMPLETE
    assert peft_sweep("run", "quickstart", "--trials", "2")[0] == exit_codes.COMPLETE
    assert peft_sweep("run", "--space", "quickstart", "--trials", "2")[0] == exit_codes.COMPLETE
    assert planned[0] == planned[1]
    assert planned[0][1] == "python -m orchestrator run --space quickstart --gpus 0 --trials 2"
    monkeypatch.setattr(sys, "argv", ["/usr/bin/peft-sweep"])
    assert peft_sweep("run", "quickstart", "--set", "seed=1", "recipe.clip=2")[0] == exit_codes.COMPLETE
    again = planned[-1][1]
    assert again == "peft-sweep run --space quickstart --gpus 0 --set=seed=1 --set=recipe.clip=2"
    assert peft_sweep(*shlex.split(again)[1:])[0] == exit_codes.COMPLETE
    assert planned[-1] == planned[-2]


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        (["ru"], {"run"}),
        (["run", "--tri"], {"--trials", "--trials-per-gpu"}),
        (["run", "quick"], {"quickstart"}),
        (["plan", "--methods", "madap"], {"madapter"}),
        (["list", "sp"], {"spaces"}),
        (["run", "--out", ""], set()),
    ],
)
def test_a_shell_completes_what_was_typed(typed, words, capsys):
    assert main(["completion", "bash"]) == exit_codes.COMPLETE
    script = capsys.readouterr().out
    typed = " ".join(f"'{word}'" for word in ["peft-sweep", *typed])
    ask = f'COMP_WORDS=({typed}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); _peft_sweep; echo "${{COMPREPLY[@]}}"'
    done = subprocess.run(["bash", "-c", f"{script}\n{ask}"], capture_output=True, text=True)
    assert done.stderr == ""
    assert set(done.stdout.split()) == words
    assert main(["completion", "zsh"]) == exit_codes.COMPLETE
    assert capsys.readouterr().out == f"autoload -U +X bashcompinit && bashcompinit\n{script}"
