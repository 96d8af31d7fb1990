"""The events of a sweep's ledger, one class each, and their form in JSON.

The names in `EVENTS` and the fields of the classes are those in the file and must never change. An added field needs a default,
which is used for ledgers that lack the field. Files are read and written, and records numbered and timed, in
`orchestrator/ledger.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from typing import Any, Literal

from search_spaces.language import Cell
from search_spaces.records import END_STATES, Outcome, Progress, SearchKey, Trial

Decision = Literal["continue", "stop"]


@dataclass(frozen=True, kw_only=True)
class SweepOpened:
    """A driver began to work on a sweep, a new one or a continued one."""

    manifest: Mapping[str, Any]
    format: int = 0  # version of the ledger's format; 0 for the first format, which had no number


@dataclass(frozen=True, kw_only=True)
class DevicesShared:
    """The Ray cluster has started, and its devices are divided among trials."""

    slots: int  # number of trials that the cluster trains at once
    per_device: int  # number of them on one device


@dataclass(frozen=True, kw_only=True)
class TrialAsked:
    """The study of a cell proposed a trial, or a final of a winner was added."""

    id: str
    trial: Trial
    number: int = 0  # index of the trial in the search of its cell or, for a final, among the cell's finals


@dataclass(frozen=True, kw_only=True)
class TrialStarted:
    """A trial was assigned to a device worker, for the first time or again."""

    id: str


@dataclass(frozen=True, kw_only=True)
class EpochReported:
    """A trial finished an epoch. `decision`: whether ASHA lets the trial continue."""

    id: str
    progress: Progress
    decision: Decision = "continue"


@dataclass(frozen=True, kw_only=True)
class TrialEnded:
    """A trial ended. `cached`: its result was taken from another sweep that had trained the same trial."""

    id: str
    outcome: Outcome
    cached: bool = False


@dataclass(frozen=True, kw_only=True)
class CheckpointMeasured:
    """The size of the checkpoint of a trial that is DONE."""

    id: str
    bytes: int
    stored: int  # total number of elements of the tensors in the file


@dataclass(frozen=True, kw_only=True)
class WinnerChosen:
    """A search of a cell ended, and the configuration of this trial was the best. The trial says which search it was."""

    cell: Cell
    id: str


@dataclass(frozen=True, kw_only=True)
class SearchesEndedEarly:
    """The time budget ended the searches of all cells. `budget` is the option's text ("40h"); the other fields are in seconds."""

    budget: str
    allowed: float  # the budget in seconds
    spent: float
    needed: float  # estimate for the finals


@dataclass(frozen=True, kw_only=True)
class SearchesResumed:
    """Searches that a time budget had ended are resumed: of each of these cells the search with this number.

    There are no cells if the budget had ended the searches at a moment at which their last trials finished anyway.
    """

    cells: tuple[Cell, ...] = ()
    searches: tuple[int, ...] = ()  # one number per cell; empty: the number is 0 for all

    @property
    def search_keys(self) -> tuple[SearchKey, ...]:
        """Which searches are resumed."""
        return tuple(zip(self.cells, self.searches or (0,) * len(self.cells), strict=True))


@dataclass(frozen=True, kw_only=True)
class SweepInterrupted:
    """A signal, or an error of the machines, asked the driver to stop; it starts no more trials."""

    reason: str


@dataclass(frozen=True, kw_only=True)
class SweepFinished:
    """The search and the finals of every cell have ended."""


Event = (
    SweepOpened
    | DevicesShared
    | TrialAsked
    | TrialStarted
    | EpochReported
    | TrialEnded
    | CheckpointMeasured
    | WinnerChosen
    | SearchesEndedEarly
    | SearchesResumed
    | SweepInterrupted
    | SweepFinished
)

EVENTS: Mapping[str, type[Event]] = {
    "sweep": SweepOpened,
    "lanes": DevicesShared,
    "asked": TrialAsked,
    "started": TrialStarted,
    "progress": EpochReported,
    "ended": TrialEnded,
    "saved": CheckpointMeasured,
    "winner": WinnerChosen,
    "curtailed": SearchesEndedEarly,
    "extended": SearchesResumed,
    "interrupted": SweepInterrupted,
    "finished": SweepFinished,
}
NAMES: Mapping[type[Event], str] = {event: name for name, event in EVENTS.items()}


@dataclass(frozen=True, kw_only=True)
class LedgerRecord:
    """One line of the ledger: an event with its number and time."""

    seq: int  # 1, 2, 3, ... without gaps
    time: float  # seconds since 1970 at which the event was written to disk
    event: Event


def event_to_json(event: Event) -> dict[str, Any]:
    """Return the event as JSON values: its fields, and its name under the key "event"."""
    record: dict[str, Any] = {"event": NAMES[type(event)]}
    for name, (_, write, required) in _WIRE[type(event)].items():
        value = getattr(event, name)
        # An empty tuple says nothing; without it, the lines are those that earlier versions wrote.
        if required or value != ():
            record[name] = write(value)
    return record


def event_from_json(record: Mapping[str, Any]) -> Event:
    """Return the event of which `event_to_json` returned `record`. Raises ValueError if the event or a field is not valid."""
    name = record.get("event")
    if not isinstance(name, str) or name not in EVENTS:
        raise ValueError(f"holds an unknown event, {str(name)[:80]!r}")
    wire = _WIRE[EVENTS[name]]
    unknown = sorted(record.keys() - wire.keys() - {"event"})
    missing = sorted(field for field, (_, _, required) in wire.items() if required and field not in record)
    if unknown or missing:
        told = [f"lacks {', '.join(missing)}"] * bool(missing) + [f"has unknown {', '.join(unknown)}"] * bool(unknown)
        raise ValueError(f"holds an event {name!r} that {' and '.join(told)}")
    return EVENTS[name](
        **{field: _read(name, field, read, record[field]) for field, (read, _, _) in wire.items() if field in record}
    )


def _read(event: str, field: str, read: Callable[[Any], Any], value: object) -> Any:
    try:
        return read(value)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"holds an event {event!r} whose {field} cannot be read ({type(error).__name__}: {error})"
        ) from None


def _a(kind: type | tuple[type, ...]) -> Callable[[Any], Any]:
    """Return a function that returns its argument, or raises TypeError if it has another type; a bool is not an int here."""

    def check(value: Any) -> Any:
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise TypeError(f"{str(value)[:80]!r} is of the wrong type")
        return value

    return check


def _one_of(*allowed: str) -> Callable[[Any], Any]:
    def check(value: Any) -> Any:
        if value not in allowed:
            raise ValueError(f"{str(value)[:80]!r} is not one of {', '.join(allowed)}")
        return value

    return check


def _outcome(record: Mapping[str, Any]) -> Outcome:
    _one_of(*END_STATES)(record["state"])
    found = Outcome.from_json(record)
    counts = found.counts.to_json().values() if found.counts else ()
    for value in (found.epochs, found.best_epoch, found.best_score, *found.metrics.values(), *counts):
        _a((int, float))(value)
    return found


def _progress(record: Mapping[str, Any]) -> Progress:
    for value in record.values():
        if not isinstance(value, int | float | None):
            raise TypeError(f"{str(value)[:80]!r} is no number")
    return Progress.from_json(record)


def _trial(record: Mapping[str, Any]) -> Trial:
    _one_of("search", "final")(record["phase"])
    return Trial.from_json(record)


def _cells(records: Sequence[Mapping[str, Any]]) -> tuple[Cell, ...]:
    return tuple(Cell(**record) for record in records)


def _numbers(values: Sequence[Any]) -> tuple[int, ...]:
    return tuple(_a(int)(value) for value in values)


def _same(value: Any) -> Any:
    return value


# For each type of a field: the function that reads its JSON value, and the one that writes it.
_WIRES: Mapping[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    "str": (_a(str), _same),
    "int": (_a(int), _same),
    "float": (_a((int, float)), _same),
    "bool": (_a(bool), _same),
    "Decision": (_one_of("continue", "stop"), _same),
    "Mapping[str, Any]": (_a(dict), dict),
    "Trial": (_trial, Trial.to_json),
    "Progress": (_progress, Progress.to_json),
    "Outcome": (_outcome, Outcome.to_json),
    "Cell": (lambda record: Cell(**record), lambda cell: dict(vars(cell))),
    "tuple[int, ...]": (_numbers, list),
    "tuple[Cell, ...]": (_cells, lambda cells: [dict(vars(cell)) for cell in cells]),
}


# For each field of each event: the function that reads it, the one that writes it, and whether the field is required.
_WIRE: Mapping[type, Mapping[str, tuple[Callable[[Any], Any], Callable[[Any], Any], bool]]] = {
    event: {field.name: (*_WIRES[str(field.type)], field.default is MISSING) for field in fields(event)}
    for event in NAMES
}
