"""A stand-in of the Hub's cache for the tests of models."""

import shutil
from pathlib import Path

import pytest
from huggingface_hub import constants

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def hub(monkeypatch, tmp_path, tiny_bert):
    """An empty Hub cache, no network, and a function that puts the small encoder there under a name."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)

    def put(name: str, *, without: str = "") -> Path:
        place = tmp_path / "hub" / ("models--" + name.replace("/", "--"))
        (place / "refs").mkdir(parents=True)
        (place / "refs" / "main").write_text(COMMIT)
        snapshot = place / "snapshots" / COMMIT
        shutil.copytree(tiny_bert.path, snapshot)
        if without:
            (snapshot / without).unlink()
        return snapshot

    return put
