"""Checks that there is a readable tracking store at an address, before MLflow opens it.

MLflow creates an empty database where it finds none; a report only reads, so a missing file is an error here.
"""

from __future__ import annotations

import socket
import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

from search_spaces.tracking_uri import SERVERS, check_uri, redact, sqlite_path


class StoreError(Exception):
    """The tracking store cannot be read: missing, unreachable, damaged, or its database driver is not installed."""


def check(uri: str) -> None:
    """Raise ValueError for an address that no tracking store has, StoreError when nothing answers there."""
    scheme = check_uri(uri).partition("://")[0].lower()
    if scheme == "sqlite":
        _check_file(sqlite_path(uri))
    elif scheme in SERVERS:
        _check_server(uri)


def _check_file(path: Path) -> None:
    if not path.is_file():
        raise StoreError(f"there is no tracking store at {path}: no such file")
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as connection:
            found = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'experiments'").fetchone()
    except sqlite3.Error as error:
        raise StoreError(f"{path} is not a readable MLflow store: {error}") from None
    if not found:
        raise StoreError(f"{path} is not an MLflow store: it has no table of experiments")


def _check_server(uri: str) -> None:
    """One short attempt of our own: MLflow's client would repeat its attempts for minutes."""
    parts = urlsplit(uri)
    try:
        port = parts.port or (443 if parts.scheme == "https" else 80)
        socket.create_connection((parts.hostname or "", port), timeout=5).close()
    except OSError as error:
        raise StoreError(f"nothing answers at {redact(uri)}: {error}") from None
