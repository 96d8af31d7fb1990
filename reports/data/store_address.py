"""Checks that a readable tracking store exists at an address, before MLflow opens it.

MLflow would create an empty database if the file does not exist; a report must not create one, so this is an error here.
"""

from __future__ import annotations

import socket
import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

from search_spaces.redaction import redact
from search_spaces.tracking_uri import SERVERS, check_uri, sqlite_path


class StoreError(Exception):
    """The tracking store cannot be read: missing, unreachable, damaged, or its database driver is not installed."""


class DamagedResults(Exception):
    """The tracking store can be read, but results in it are damaged, so that a report would show wrong numbers."""


def check(uri: str) -> None:
    """Raise ValueError for an address that is not valid for a tracking store, StoreError if no store can be read there."""
    scheme = check_uri(uri).partition("://")[0].lower()
    if scheme == "sqlite":
        _check_file(sqlite_path(uri))
    elif scheme in SERVERS:
        _check_server(uri)


def _check_file(path: Path) -> None:
    """Raise StoreError unless the file is an SQLite database with MLflow's table of experiments."""
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
    """Raise StoreError unless a connection opens within 5 seconds; MLflow's client would try again for minutes."""
    parts = urlsplit(uri)
    try:
        port = parts.port or (443 if parts.scheme == "https" else 80)
        socket.create_connection((parts.hostname or "", port), timeout=5).close()
    except OSError as error:
        raise StoreError(f"nothing answers at {redact(uri)}: {error}") from None
