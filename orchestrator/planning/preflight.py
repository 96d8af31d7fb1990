"""Checks GPUs, folders, the tracking store's address and the cluster's address before anything is started or written."""

from __future__ import annotations

import os
import re
import shutil
import socket
import tempfile
from importlib.util import find_spec
from pathlib import Path

from orchestrator.execution.gpus import check_gpus
from orchestrator.exit_codes import EnvironmentUnfit
from orchestrator.program import NAME
from orchestrator.run_options import RunOptions
from search_spaces.language import Recipe
from search_spaces.quantization import EXTRA, PACKAGE
from search_spaces.tracking_uri import DATABASE, check_recorded_uri, sqlite_path, sqlite_uri
from trainables.worker.file_system_store import FileSystemStore
from trainables.worker.worker_environment import WorkerEnvironmentError

MIN_FREE_MIB = 100
CONNECT_SECONDS = 3.0
_ADDRESS = re.compile(r"(?P<host>[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]):(?P<port>[0-9]{1,5})")


def check(options: RunOptions) -> None:
    """Raise ValueError for an invalid option, EnvironmentUnfit if this machine lacks a GPU, a usable place or a cluster."""
    if options.tracking_uri:
        check_tracking(options.tracking_uri, options.tracking_from)
    if options.system_metrics and not find_spec("psutil"):
        raise EnvironmentUnfit("the record of this machine's use needs psutil: pip install psutil")
    if options.address:
        check_address(options.address)
    check_gpus(options)
    check_folder("--out", options.out)
    sqlite_uri(options.out / DATABASE)  # raises ValueError for a path that no address can hold
    check_folder("--report", options.report)
    if options.checkpoints:
        try:
            FileSystemStore(options.checkpoints).check()
        except WorkerEnvironmentError as error:
            raise EnvironmentUnfit(str(error)) from None


def check_quantization(recipe: Recipe) -> None:
    """Raise EnvironmentUnfit if the recipe stores the backbone in 4 bits and the package that does it is not installed."""
    if recipe.nf4 and not find_spec(PACKAGE):
        raise EnvironmentUnfit(
            f"precision 'nf4' needs {PACKAGE}, which is not installed: pip install '{NAME}[{EXTRA}]', or in a checkout "
            f"pip install -e '.[{EXTRA}]'"
        )


def check_folder(flag: str, folder: Path) -> None:
    """Raise EnvironmentUnfit unless `folder` is writable, or could be created, and its disk has 100 MiB free.

    Nothing is left behind. `flag` is the option that the message names.
    """
    existing = folder.absolute()
    while not _is_there(existing):
        existing = existing.parent
    if not existing.is_dir():
        raise EnvironmentUnfit(f"{flag} {folder}: {existing} is not a folder; give another place")
    try:
        # Permission bits do not tell: root ignores them, as do read-only, network and kernel file systems.
        with tempfile.TemporaryDirectory(prefix=".probe-", dir=existing):
            pass
    except OSError as error:
        raise EnvironmentUnfit(
            f"{flag} {folder}: {existing} cannot be written ({error.strerror}); give another place, or mend its permissions"
        ) from None
    free = shutil.disk_usage(existing).free >> 20
    if free < MIN_FREE_MIB:
        raise EnvironmentUnfit(
            f"{flag} {folder}: {free} MiB are free on its disk and at least {MIN_FREE_MIB} are needed; free some, or give "
            "another place"
        )


def _is_there(path: Path) -> bool:
    """Like `Path.exists`, but True for a dangling link, and raises OSError for a name that is too long."""
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def check_tracking(uri: str, variable: str = "") -> None:
    """Raise ValueError or EnvironmentUnfit for an address that cannot be a tracking store.

    A server that does not answer is accepted, because it may answer later. `variable`: the environment variable that named the
    address; "" for the option.
    """
    try:
        if check_recorded_uri(uri).startswith("sqlite:"):
            check_folder("--tracking-uri", sqlite_path(uri).parent)
    except (ValueError, EnvironmentUnfit) as error:
        if not variable:
            raise
        text = str(error).replace("--tracking-uri", f"environment variable {variable}:", 1)
        raise type(error)(f"{text} (or give --tracking-uri, which is used instead of the variable)") from None


def check_address(address: str) -> None:
    """Raise ValueError unless `address` is HOST:PORT or "auto", EnvironmentUnfit if nothing accepts a connection there."""
    found = _ADDRESS.fullmatch(address)
    if address == "auto":
        return
    if not found or not 1 <= int(found["port"]) <= 65535:
        raise ValueError(f"--address {address!r}: must be HOST:PORT, as `ray start` prints it, or auto")
    try:
        socket.create_connection((found["host"].strip("[]"), int(found["port"])), CONNECT_SECONDS).close()
    except OSError as error:
        raise EnvironmentUnfit(
            f"--address {address}: nothing answers there ({error.strerror or error}); start the cluster, or leave --address out"
        ) from None
