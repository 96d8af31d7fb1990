"""The address of a tracking store: checked before MLflow sees it, and shown without what must stay secret."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

SERVERS = ("http", "https")
DATABASES = ("postgresql", "mysql", "mssql")
_SCHEME = re.compile(r"([a-z][a-z0-9+.-]*)://", re.IGNORECASE)
# Greedy, because an unquoted password may hold a slash or an @.
_USERINFO = re.compile(r"(?<=://)(?!/)[^\s'\"]*@")
_QUERY = re.compile(r"(://[^\s'\"?]*)\?[^\s'\"]*")
_TOKEN = re.compile(r"\b(?:hf_|ghp_|sk-)[A-Za-z0-9_-]{8,}|(?<=Bearer )\S+")


def redact(text: str) -> str:
    """The text without user names, passwords and queries of addresses, and without well-known kinds of tokens."""
    return _TOKEN.sub("***", _QUERY.sub(r"\1", _USERINFO.sub("", text)))


def check_uri(uri: str) -> str:
    """Return the address; raise ValueError, which never shows a password, for one that cannot serve as a store."""
    shown = f"tracking address {redact(uri)!r}"
    found = _SCHEME.match(uri)
    scheme = found[1].lower() if found else ""
    if scheme in ("", "file"):
        raise ValueError(f"{shown}: MLflow no longer keeps runs in plain folders; write sqlite:///FOLDER/mlflow.db")
    if scheme == "sqlite":
        _check_file(shown, uri)
    elif scheme in SERVERS:
        _check_server(shown, uri)
    elif scheme.split("+")[0] in DATABASES:
        _check_database(shown, uri)
    else:
        allowed = ", ".join(("sqlite", *SERVERS, *DATABASES))
        raise ValueError(f"{shown}: cannot be used; it must start with one of {allowed} and ://")
    return uri


def _check_file(shown: str, uri: str) -> None:
    path = uri[len("sqlite://") :]
    if not path.startswith("/") or path.partition("?")[0].rstrip("/") in ("", "/:memory:"):
        raise ValueError(f"{shown}: write sqlite:///relative/path.db or sqlite:////absolute/path.db")


def _check_server(shown: str, uri: str) -> None:
    parts = urlsplit(uri)
    if "@" in uri:
        raise ValueError(
            f"{shown}: an address is kept in logs and records, so it must not hold a user name or password; set "
            "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD instead"
        )
    if parts.query or parts.fragment:
        raise ValueError(f"{shown}: must end before any ? or #; a token goes into MLFLOW_TRACKING_TOKEN")
    try:
        good = bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    if not good:
        raise ValueError(f"{shown}: must name a host and, after a colon, a port between 1 and 65535")


def _check_database(shown: str, uri: str) -> None:
    if urlsplit(uri).password is not None or re.search(r"[?&](password|pwd)=", uri, re.IGNORECASE):
        raise ValueError(
            f"{shown}: an address is kept in logs and records, so it must not hold a password; put an MLflow server in "
            "front of the database and set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
        )
