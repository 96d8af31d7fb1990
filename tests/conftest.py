"""Fixtures that several test files share."""

import os
import signal
import sys
from types import ModuleType

import pytest

from tests.fixtures.encoders import write_tiny

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
for variable in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING"):
    os.environ.pop(variable, None)  # a developer's own must not decide where tests write
# Ignored under nohup, which the processes that tests start would inherit.
signal.signal(signal.SIGHUP, signal.SIG_DFL)


def pytest_configure(config):
    """Give each process that runs slow tests a core of its own.

    A sweep trains one trial per core that it sees. Sweeps that run side by side would each start a worker for every core.
    """
    worker = os.environ.get("PYTEST_XDIST_WORKER")
    if worker and config.option.markexpr == "slow" and hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[int(worker.removeprefix("gw")) % len(cores)]})


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory):
    from trainables.backbone.models import resolve

    return resolve(str(write_tiny(tmp_path_factory.mktemp("bert"), "bert")))


@pytest.fixture(scope="session")
def tiny_roberta(tmp_path_factory):
    from trainables.backbone.models import resolve

    return resolve(str(write_tiny(tmp_path_factory.mktemp("roberta"), "roberta")))


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory):
    """A function from a model type to its small random encoder, written once."""
    from functools import cache

    from trainables.backbone.models import resolve

    @cache
    def get(family: str):
        return resolve(str(write_tiny(tmp_path_factory.mktemp(family), family)))

    return get


@pytest.fixture(scope="session")
def readable_distilbert(tmp_path_factory):
    """A small random encoder whose first token tells the label of `make_data`'s task.

    A logistic regression on its last hidden state gets 97 % or more of the test split right; on other seeds as little as 73 %.
    """
    from trainables.backbone.models import resolve

    return resolve(str(write_tiny(tmp_path_factory.mktemp("readable"), "distilbert", seed=2)))


@pytest.fixture
def driver(monkeypatch):
    """Stands for the driver: takes a checked plan, and fails the test unless told what to do with it."""
    module = ModuleType("orchestrator.driver")
    module.drive = lambda plan, options: pytest.fail("a sweep was started")
    monkeypatch.setitem(sys.modules, "orchestrator.driver", module)
    return module


@pytest.fixture
def calling(driver, monkeypatch, capsys, tmp_path):
    """Makes of a `main` a function that calls it in an empty folder; returns (exit code, what it wrote to stderr)."""
    place = tmp_path / "place"
    place.mkdir()
    monkeypatch.chdir(place)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")

    def calling(main):
        def call(*words) -> tuple[int, str]:
            try:
                code = main([str(word) for word in words])
            except SystemExit as end:  # argparse
                code = end.code
            errors = capsys.readouterr().err
            assert "Traceback" not in errors
            assert list(place.iterdir()) == []
            return code, errors

        return call

    return calling


@pytest.fixture
def run(calling):
    """Calls the command line of the first release in an empty folder; returns (exit code, what it wrote to stderr)."""
    from orchestrator.run import main

    return calling(main)
