"""Reads tables of a data set on the Hugging Face Hub, or of its copy in the library's cache."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trainables.tasks.task_data import MissingData


def read_splits(task: str, repo: str, config: str, splits: Sequence[str], files: str) -> list[Any]:
    """Return these splits of a data set of the Hub, each a table whose columns are read by name.

    `repo`: owner/name, or a folder of the same layout. `task` and `files`, what --data-dir may hold instead, are for the message
    of MissingData, which is raised if the data are neither on the Hub nor in the cache.
    """
    import datasets

    if not datasets.config.HF_HUB_OFFLINE and not Path(repo).is_dir() and not _reachable(datasets.config.HF_ENDPOINT):
        # Without this setting the library would retry for half a minute before it uses its cache.
        datasets.config.HF_HUB_OFFLINE = True
    try:
        found = datasets.load_dataset(repo, config)
    except Exception as error:  # its type depends on the HTTP library that the Hub's client uses
        cache = os.path.dirname(str(datasets.config.HF_DATASETS_CACHE))
        raise MissingData(
            f"task {task!r}: {repo} is neither reachable nor in the cache {cache} ({type(error).__name__}: {str(error)[:200]}); "
            f"give --data-dir with {files}, or run once with network and copy that folder (HF_HOME names it)"
        ) from None
    return [found[split] for split in splits]


def _reachable(endpoint: str) -> bool:
    """Return whether a server answers at this address within 5 seconds, through the configured proxy if there is one."""
    import ssl
    import urllib.error
    import urllib.request

    try:
        urllib.request.urlopen(endpoint, timeout=5).close()
    except urllib.error.HTTPError:
        return True
    except OSError as error:
        # A server with a certificate that is not trusted here did answer; the Hub's client may trust the certificate.
        return isinstance(getattr(error, "reason", error), ssl.SSLError)
    return True
