"""Files of a sweep are private: only their owner may read them, whatever the user's umask is."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def private_files() -> Iterator[int]:
    """Make files with mode 0600 and folders with 0700 within the block, also in child processes. Yields the umask before it.

    Files and folders that exist keep their permissions.
    """
    before = os.umask(0o077)
    try:
        yield before
    finally:
        os.umask(before)
