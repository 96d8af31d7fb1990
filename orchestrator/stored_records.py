"""The records of a ledger, left in its file: memory holds where each line begins, 8 bytes, and a reader parses what it needs."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import overload

from search_spaces.events import LedgerRecord


class StoredRecords(Sequence[LedgerRecord]):
    """Records in the file `path`, of which the first bytes of their lines are at `starts`, which grows with the ledger.

    `parse` returns the record of a line. The file is opened for each reading, so that threads may read while another one adds
    records, and after the ledger was closed.
    """

    def __init__(self, path: Path, starts: array[int], parse: Callable[[bytes], LedgerRecord]):
        self._path, self._starts, self._parse = path, starts, parse

    def __len__(self) -> int:
        return len(self._starts)

    @overload
    def __getitem__(self, index: int) -> LedgerRecord: ...

    @overload
    def __getitem__(self, index: slice) -> list[LedgerRecord]: ...

    def __getitem__(self, index: int | slice) -> LedgerRecord | list[LedgerRecord]:
        wanted = range(len(self))[index]
        return list(self._read(wanted)) if isinstance(wanted, range) else next(self._read([wanted]))

    def __iter__(self) -> Iterator[LedgerRecord]:
        return self._read(range(len(self)))

    def _read(self, indices: Iterable[int]) -> Iterator[LedgerRecord]:
        with self._path.open("rb") as file:
            for index in indices:
                file.seek(self._starts[index])
                yield self._parse(file.readline())
