"""What several files share and none may change: the known sweep, and its report as its command line builds it."""

import pytest

from reports.__main__ import main
from reports.data.store import read
from reports.statistics.analysis import analyze
from tests.fixtures.report_store import known_store


@pytest.fixture(scope="session")
def known_report(tmp_path_factory):
    folder = tmp_path_factory.mktemp("known") / "report"
    assert main(["--tracking-uri", known_store(), "--out", str(folder)]) == 0
    return folder


@pytest.fixture(scope="session")
def known_sweep():
    return analyze(read(known_store(), "sweep-1"))
