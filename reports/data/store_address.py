"""Where the tracking store is: checks an address before MLflow sees it, and hides what must not be printed.

MLflow creates an empty database where it finds none; a report only reads, so a missing file is an error here.
"""

from __future__ import annotations

import re
import socket
import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

SCHEMES = ("sqlite", "http", "https", "postgresql", "mysql", "mssql")
_USERINFO = re.compile(r"(://)[^/\s]*@")
_TOKEN = re.compile(r"\b(hf_|ghp_|sk-)[A-Za-z0-9_-]{8,}|(?<=Bearer )\S+")


class StoreError(Exception):
    """The tracking store cannot be read: missing, unreachable or damaged."""


def redact(text: str) -> str:
    """The text without user names and passwords of addresses, and without well-known kinds of access tokens."""
    return _TOKEN.sub("***", _USERINFO.sub(r"\1", text))


def check(uri: str) -> None:
    """Raise ValueError for an address that is none, StoreError when nothing answers there."""
    scheme, separator, _ = uri.partition("://")
    if not separator or scheme.split("+")[0] not in SCHEMES:
        raise ValueError(f"--tracking-uri {redact(uri)!r}: must start with one of {', '.join(SCHEMES)} and ://")
    if scheme == "sqlite":
        _check_file(sqlite_path(uri))
    elif scheme in ("http", "https"):
        _check_server(uri)


def sqlite_path(uri: str) -> Path:
    """File of a sqlite address: sqlite:///relative or sqlite:////absolute."""
    path = uri.removeprefix("sqlite://").partition("?")[0]
    if not path.startswith("/") or path == "/":
        raise ValueError(f"--tracking-uri {uri!r}: write sqlite:///relative/path or sqlite:////absolute/path")
    return Path(path[1:])


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
