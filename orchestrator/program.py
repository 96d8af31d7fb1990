"""What this program is called on the command line, and its version."""

from __future__ import annotations

import sys
import tomllib
from importlib import metadata
from pathlib import Path

NAME = "peft-sweep"


def words() -> tuple[str, ...]:
    """Return the words with which this process was started: the installed command, or the package run as a module."""
    return (NAME,) if Path(sys.argv[0]).stem == NAME else ("python", "-m", "orchestrator")


def version() -> str:
    """Return the version of the installed package, or that of the checkout from which it runs without being installed."""
    try:
        return metadata.version(NAME)
    except metadata.PackageNotFoundError:
        file = Path(__file__).resolve().parents[1] / "pyproject.toml"
        return str(tomllib.loads(file.read_text(encoding="utf-8"))["project"]["version"])
