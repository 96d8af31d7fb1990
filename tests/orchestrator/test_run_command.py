"""The command that repeats a sweep, and the options that reach it."""

import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.run import command_of, options_of, parser


@pytest.mark.parametrize(
    "words",
    [
        ["--space", "quickstart"],
        ["--space", "my folder/it's mine.py", "--gpus", "8", "--models", "minilm,./a b"],
        ["--space", "quickstart", "--tasks", "sentiment", "--methods", "full,adapter", "--trials", "3", "--seeds", "1"],
        ["--space", "quickstart", "--gpus", "4..32", "--address", "h:1"],
        ["--space", "quickstart", "--epochs", "2", "--trials-per-gpu", "4", "--data-dir", "räume/glue"],
        ["--space", "quickstart", "--budget", "90m", "--experiment", "our team", "--system-metrics"],
        ["--space", "quickstart", "--set", "recipe.epochs=5", "search.lr=choice(1e-4, 1e-3)", "--set", "title=it's -1"],
        [
            "--space",
            "quickstart",
            "--out=-x",
            "--report",
            "$HOME",
            "--tracking-uri",
            "http://h:5000",
            "--address",
            "h:1",
        ],
        ["--space", "quickstart", "--out=~unknown-user/x"],
    ],
)
def test_the_command_of_a_sweep_repeats_it(words):
    assert_repeats(words)


@settings(max_examples=40, deadline=None)
@given(
    st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")), min_size=1),
    st.integers(min_value=-10, max_value=10_000),
)
def test_the_command_of_a_sweep_repeats_any_path_and_number(text, number):
    assert_repeats([f"--space={text}", f"--out={text}", f"--trials={number}"])


def test_the_command_of_a_sweep_leaves_out_what_only_prints():
    command = command_of(parser().parse_args(["--space", "quickstart", "--plan", "--list", "--yes"]))
    assert command == "python -m orchestrator.run --space quickstart --gpus 0"


def test_every_option_reaches_the_run():
    """Options that only print, and the space, are no part of it."""
    words = {
        "--models": "a,b",
        "--tasks": "t",
        "--methods": "m",
        "--trials": "2",
        "--seeds": "3",
        "--epochs": "4",
        "--train-examples": "100",
        "--set": "seed=1",
        "--precision": "bf16",
        "--gpus": "5",
        "--trials-per-gpu": "6",
        "--budget": "7m",
        "--data-dir": "data",
        "--out": "out",
        "--checkpoints": "s3://bucket/path",
        "--report": "report",
        "--tracking-uri": "http://h:1",
        "--keep": "all",
        "--experiment": "e",
        "--address": "h:2",
    }
    options = options_of(parser().parse_args([word for pair in words.items() for word in pair]))
    assert {**vars(options), "command": ""} == {
        "models": ["a", "b"],
        "tasks": ["t"],
        "methods": ["m"],
        "num_configurations": 2,
        "final_seeds": 3,
        "epochs": 4,
        "train_examples": 100,
        "settings": ("seed=1",),
        "precision": "bf16",
        "gpus": 5,
        "least_gpus": None,
        "trials_per_device": 6,
        "budget": "7m",
        "data_dir": Path("data"),
        "out": Path("out"),
        "checkpoints": "s3://bucket/path",
        "report": Path("report"),
        "tracking_uri": "http://h:1",
        "tracking_from": "",
        "keep": "all",
        "experiment": "e",
        "system_metrics": False,
        "address": "h:2",
        "command": "",
    }
    assert "--address h:2" in options.command


def test_a_range_of_gpus_reaches_the_run_as_the_most_and_the_least():
    options = options_of(parser().parse_args(["--space", "quickstart", "--gpus", "4..32"]))
    assert (options.gpus, options.least_gpus, options.fewest_gpus) == (32, 4, 4)
    assert "--gpus 4..32" in options.command


def test_mlflows_own_variables_stand_for_options_that_are_not_given(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://elsewhere:1")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "theirs")
    monkeypatch.setenv("MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING", "true")

    def chosen(*words):
        options = options_of(parser().parse_args(words))
        assert "elsewhere" not in options.command
        return options.tracking_uri, options.tracking_from, options.experiment, options.system_metrics

    assert chosen() == ("http://elsewhere:1", "MLFLOW_TRACKING_URI", "theirs", True)
    given = chosen("--tracking-uri", "http://h:1", "--experiment", "ours")
    assert given == ("http://h:1", "", "ours", True)
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING"):
        monkeypatch.setenv(name, "")
    assert chosen() == (None, "", None, False)


def assert_repeats(words: list[str]) -> None:
    arguments = parser().parse_args(words)
    again = shlex.split(command_of(arguments))
    assert again[:3] == ["python", "-m", "orchestrator.run"]
    assert parser().parse_args(again[3:]) == arguments


@pytest.mark.parametrize("words", [["--list", "methods"], ["--space", "quickstart", "--plan"]])
def test_a_reader_that_has_seen_enough_is_no_error(words):
    command = [sys.executable, "-m", "orchestrator.run", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        assert (process.stderr.read(), process.wait()) == (b"", 0)
