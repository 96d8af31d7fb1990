"""How CI runs the slow tests: one that fails is run once more, alone, and the output says so."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[1] / ".ci" / "slow"
TESTS = """
import os, pytest
from pathlib import Path

@pytest.mark.slow
@pytest.mark.parametrize("name", ["a", "b c"])
def test_fails_once(name):
    runs = Path(name)
    runs.write_text(runs.read_text() + "x" if runs.exists() else "x")
    assert runs.read_text() == "xx"

@pytest.mark.slow
def test_passes():
    with open("passes", "a") as file:
        file.write("x")

def test_fast():
    assert False
"""
TWICE = """
@pytest.mark.slow
def test_fails_twice():
    assert False
"""
SETTINGS = "[pytest]\naddopts = -q -m 'not slow'\nmarkers = slow: minutes\n"


@pytest.fixture
def slow(tmp_path):
    """Runs the script on these tests: (exit code, output)."""

    def slow(tests):
        (tmp_path / ".ci").mkdir()
        shutil.copy(SCRIPT, tmp_path / ".ci")
        (tmp_path / "pytest.ini").write_text(SETTINGS, encoding="utf-8")
        (tmp_path / "test_it.py").write_text(tests, encoding="utf-8")
        plugins = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_ADDOPTS": "-p xdist"}
        environment = {**os.environ, **plugins, "PYTHON": sys.executable}
        done = subprocess.run([tmp_path / ".ci" / "slow"], env=environment, capture_output=True, text=True)
        return done.returncode, done.stdout

    return slow


def test_a_test_that_fails_once_is_run_again_and_does_not_count(slow, tmp_path):
    code, output = slow(TESTS)
    assert code == 0, output
    assert "2 slow tests failed at first" in output
    assert "passed when run again, alone: test_it.py::test_fails_once[a]" in output
    assert "passed when run again, alone: test_it.py::test_fails_once[b c]" in output
    assert (tmp_path / "passes").read_text() == "x"


def test_a_test_that_fails_again_counts(slow):
    code, output = slow(TESTS.replace(', "b c"', "") + TWICE)
    assert code == 1
    assert "FAILED TWICE: test_it.py::test_fails_twice" in output
    assert "passed when run again, alone: test_it.py::test_fails_once[a]" in output


def test_a_file_that_cannot_be_imported_is_not_run_again(slow):
    code, output = slow("import nothing_of_this_name")
    assert code == 2
    assert "RUN AGAIN" not in output


def test_where_nothing_fails_nothing_is_run_again(slow):
    code, output = slow(TESTS.replace('["a", "b c"]', "[]"))
    assert code == 0, output
    assert "RUN AGAIN" not in output
