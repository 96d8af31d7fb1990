"""Fixtures of the tests of sweeps and their tracking store."""

import pytest

from tests.fixtures.tracking_sweep import client


@pytest.fixture(scope="session")
def schema(tmp_path_factory):
    """An empty MLflow database, to be copied: creating one takes two seconds, copying it none."""
    path = tmp_path_factory.mktemp("empty") / "mlflow.db"
    client(f"sqlite:///{path}")
    return path
