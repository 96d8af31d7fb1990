"""Drivers that are killed at random steps of their writing, with torn writes: nothing lost, nothing doubled, equal results."""

import shutil
import tempfile
from pathlib import Path

import pytest

from tests.faults.random_kills import MEMORY, kill_at_random


@pytest.fixture
def folder():
    path = Path(tempfile.mkdtemp(prefix="kills-", dir=MEMORY))
    yield path
    shutil.rmtree(path)


def check(found, number):
    assert found["wrong"] == []
    assert found["left"].keys() <= {"report"}, "files that no later driver has removed"
    assert sum(found["kills"].values()) == number
    assert found["steps"]["file"] > 100


def test_a_driver_that_is_killed_at_any_step_continues_to_the_end_of_its_undisturbed_twin(folder):
    check(kill_at_random(folder, 80, seed=1), 80)


@pytest.mark.slow
def test_a_thousand_kills(folder):
    check(kill_at_random(folder, 1000, seed=2), 1000)


@pytest.mark.slow
def test_the_whole_command_line_with_its_tracking_store_and_report(folder):
    check(kill_at_random(folder, 12, seed=3, whole=True), 12)
