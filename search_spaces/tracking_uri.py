"""Checks addresses of MLflow tracking stores.

`check_uri` refuses addresses that MLflow cannot use; `check_recorded_uri`, for addresses that will be logged or stored, also
refuses credentials. Both look at the address only and open no connection or file.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

from search_spaces.redaction import holds_password, redact

SERVERS = ("http", "https")
DATABASES = ("postgresql", "mysql", "mssql")
_SCHEME = re.compile(r"([a-z][a-z0-9+.-]*)://", re.IGNORECASE)
# Names of MLflow's database and of the folder of its files, in the folders in which this project makes a store.
DATABASE, ARTIFACTS = "mlflow.db", "mlflow-artifacts"
# MLflow's own environment variables, which apply where an option is not given.
URI_VARIABLE, EXPERIMENT_VARIABLE = "MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME"
SYSTEM_METRICS_VARIABLE = "MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING"
# What may stand after the "?" of a sqlite address. Any other "?" belongs to the path, where SQLAlchemy would end it.
SQLITE_OPTIONS = {
    "cache",
    "check_same_thread",
    "detect_types",
    "immutable",
    "isolation_level",
    "mode",
    "nolock",
    "timeout",
    "uri",
}


def check_uri(uri: str) -> str:
    """Return the address. Raises ValueError, whose message contains no password, if MLflow cannot use the address."""
    found = _SCHEME.match(uri)
    scheme = found[1].lower() if found else ""
    if scheme in ("", "file"):
        raise ValueError(
            f"{_shown(uri)}: MLflow no longer keeps runs in plain folders; write sqlite:///FOLDER/mlflow.db"
        )
    if scheme == "sqlite":
        sqlite_path(uri)
    elif scheme in SERVERS:
        _check_server(uri)
    elif scheme.split("+")[0] not in DATABASES:
        allowed = ", ".join(("sqlite", *SERVERS, *DATABASES))
        raise ValueError(f"{_shown(uri)}: cannot be used; it must start with one of {allowed} and ://")
    return uri


def asks_for_system_metrics() -> bool:
    """Return whether MLflow's environment variable asks for a record of the machine's use."""
    return os.environ.get(SYSTEM_METRICS_VARIABLE, "").lower() in ("true", "1")


def check_recorded_uri(uri: str) -> str:
    """Return an address that will be logged or stored. Raises ValueError as `check_uri` does, and if it holds credentials."""
    scheme = uri.partition("://")[0].lower()
    if scheme in SERVERS:
        _refuse_server_credentials(uri)
    check_uri(uri)
    if scheme.split("+")[0] in DATABASES:
        _refuse_database_password(uri)
    return uri


def sqlite_path(uri: str) -> Path:
    """Return the path in an address sqlite:///relative or sqlite:////absolute. Raises ValueError for any other address."""
    path, mark, query = uri[len("sqlite://") :].partition("?")
    if mark and not {name for name, _ in parse_qsl(query, keep_blank_values=True)} <= SQLITE_OPTIONS:
        raise ValueError(
            f"{_shown(uri)}: the path of a database cannot hold a '?', where its address would end; rename it"
        )
    if not path.startswith("/") or path.rstrip("/") in ("", "/:memory:"):
        raise ValueError(f"{_shown(uri)}: write sqlite:///relative/path.db or sqlite:////absolute/path.db")
    return Path(path[1:])


def sqlite_uri(path: Path) -> str:
    """Return the address of a database file. Raises ValueError if the absolute path holds a "?", where its address would end."""
    absolute = path.absolute()
    if "?" in str(absolute):
        raise ValueError(
            f"{str(absolute)!r}: the path of the tracking database cannot hold a '?', where its address would end; choose a "
            "folder without one"
        )
    return f"sqlite:///{absolute}"


def _shown(uri: str) -> str:
    # Decoded, because what is percent-encoded would not be recognised as a password; a path is shown as it was given.
    return f"--tracking-uri {redact(uri if uri.startswith('sqlite:') else unquote(unquote(uri)))!r}"


def _check_server(uri: str) -> None:
    parts = urlsplit(uri)
    if parts.query or parts.fragment:
        raise ValueError(f"{_shown(uri)}: must end before any ? or #; a token goes into MLFLOW_TRACKING_TOKEN")
    try:
        good = bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    if not good:
        raise ValueError(f"{_shown(uri)}: must name a host and, after a colon, a port between 1 and 65535")


def _refuse_server_credentials(uri: str) -> None:
    if "@" in unquote(uri):
        raise ValueError(
            f"{_shown(uri)}: an address is kept in logs and records, so it must not hold a user name or password; set "
            "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD instead"
        )


def _refuse_database_password(uri: str) -> None:
    if holds_password(uri):
        raise ValueError(
            f"{_shown(uri)}: an address is kept in logs and records, so it must not hold a password; put an MLflow server in "
            "front of the database and set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
        )
