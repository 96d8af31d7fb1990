"""The command line is an interface: scripts and schedulers are written against it."""

import pytest

from orchestrator import exit_codes
from orchestrator.run import parser

OPTIONS = [
    "--address",
    "--budget",
    "--checkpoints",
    "--data-dir",
    "--epochs",
    "--experiment",
    "--gpus",
    "--help",
    "--keep",
    "--list",
    "--methods",
    "--models",
    "--out",
    "--plan",
    "--precision",
    "--probe",
    "--report",
    "--seeds",
    "--set",
    "--space",
    "--system-metrics",
    "--tasks",
    "--tracking-uri",
    "--train-examples",
    "--trials",
    "--trials-per-gpu",
    "--yes",
    "-h",
]
DEFAULTS = {
    "space": None,
    "gpus": 0,
    "models": None,
    "tasks": None,
    "methods": None,
    "trials": None,
    "seeds": None,
    "epochs": None,
    "data_dir": None,
    "out": "runs",
    "checkpoints": None,
    "report": "reports",
    "keep": "best",
    "tracking_uri": None,
    "experiment": None,
    "system_metrics": False,
    "address": None,
    "budget": None,
    "precision": None,
    "plan": False,
    "probe": False,
    "list": None,
    "yes": False,
}
EXIT_CODES = {
    "COMPLETE": 0,
    "BAD_INPUT": 2,
    "TOO_MANY_FAILURES": 3,
    "ENVIRONMENT": 4,
    "DAMAGED_STATE": 5,
    "HELD": 6,
    "CLUSTER_LOST": 7,
    "PREEMPTED": 75,
    "INTERRUPTED": 130,
}


def test_the_options_are_these():
    assert sorted(option for action in parser()._actions for option in action.option_strings) == OPTIONS


def test_the_defaults_are_these():
    found = vars(parser().parse_args([]))
    assert {name: found[name] if found[name] in (None, 0) else str(found[name]) for name in DEFAULTS} == DEFAULTS


def test_trials_per_gpu_may_be_auto_and_that_is_the_default():
    default = parser().parse_args([]).trials_per_gpu
    assert parser().parse_args(["--trials-per-gpu", "auto"]).trials_per_gpu == default


def test_options_are_not_abbreviated():
    with pytest.raises(SystemExit):
        parser().parse_args(["--trial", "3"])


def test_every_option_has_a_line_of_help():
    assert all(action.help for action in parser()._actions)


def test_the_exit_codes_are_these():
    assert {name: value for name, value in vars(exit_codes).items() if isinstance(value, int)} == EXIT_CODES


def test_the_help_names_every_exit_code():
    listed = parser().format_help().partition("exit codes:")[2].split()
    assert [int(word) for word in listed if word.isdecimal()] == list(EXIT_CODES.values())
