"""Events are written as the first release wrote them, and what cannot be read is refused by name."""

import json
from dataclasses import fields, replace
from pathlib import Path

import pytest

from search_spaces.events import EVENTS, event_from_json, event_to_json
from search_spaces.language import Cell
from search_spaces.records import Ablation, Counts, Outcome
from tests.fixtures.tracking_sweep import FINAL, SEARCHED

# Written by the first release: two drivers, the first of them killed after a time budget had ended the searches.
FIRST_RELEASE = Path(__file__).parents[1] / "fixtures" / "ledgers" / "first_release.jsonl"
CELL = Cell(model="tiny", task="rte", method="adapter")
PROGRESS = {
    "epoch": 1,
    "score": 61.5,
    "loss": None,
    "best_score": 61.5,
    "best_epoch": 1,
    "seconds": 2.5,
    "memory_mib": 64.0,
    "diverged": True,
}
OUTCOME = Outcome(
    state="DONE",
    reason="epochs",
    epochs=2,
    best_epoch=2,
    best_score=65.5,
    metrics={"accuracy": 64.25},
    predictions="predictions/a.json",
    counts=Counts(weights=10, module=12, trained=20, total=1000),
    ablation=Ablation(whole=65.5, spans=((60.0, 55.0), (61.0,)), seconds=3.5),
)
# One record of each event, with all its fields, as it stands on disk.
RECORDS = {
    "sweep": {"event": "sweep", "format": 1, "manifest": {"sweep": "s", "models": {"tiny": {"layers": [1, 2]}}}},
    "lanes": {"event": "lanes", "slots": 8, "per_device": 4},
    "asked": {"event": "asked", "number": 3, "id": FINAL.id, "trial": FINAL.to_json()},
    "started": {"event": "started", "id": "a"},
    "progress": {"event": "progress", "id": "a", "progress": PROGRESS, "decision": "stop"},
    "ended": {"event": "ended", "id": "a", "outcome": OUTCOME.to_json(), "cached": True},
    "saved": {"event": "saved", "id": "a", "bytes": 4321, "stored": 1050},
    "winner": {"event": "winner", "cell": vars(CELL), "id": "a"},
    "curtailed": {"event": "curtailed", "budget": "40h", "allowed": 144000.0, "spent": 1.5, "needed": 2},
    "extended": {"event": "extended", "cells": [vars(CELL)]},
    "interrupted": {"event": "interrupted", "reason": "SIGTERM"},
    "finished": {"event": "finished"},
}
# Fields that a record may lack.
OPTIONAL = {
    ("sweep", "format"),
    ("asked", "number"),
    ("progress", "decision"),
    ("ended", "cached"),
    ("extended", "cells"),
}


def on_disk(record):
    return json.loads(json.dumps(record))


@pytest.mark.parametrize("name", EVENTS)
def test_an_event_that_is_read_is_written_as_it_was(name):
    event = event_from_json(on_disk(RECORDS[name]))
    assert type(event) is EVENTS[name]
    assert on_disk(event_to_json(event)) == on_disk(RECORDS[name])
    assert event_from_json(on_disk(event_to_json(event))) == event


@pytest.mark.parametrize("name", EVENTS)
def test_an_event_whose_lists_are_empty_is_read_again(name):
    event = event_from_json(on_disk(RECORDS[name]))
    lists = {field.name: () for field in fields(event) if isinstance(getattr(event, field.name), tuple)}
    empty = replace(event, **lists)
    assert event_from_json(on_disk(event_to_json(empty))) == empty


def test_every_line_of_a_ledger_of_the_first_release_is_read_and_written_as_it_was():
    found = set()
    for line in FIRST_RELEASE.read_text(encoding="utf-8").splitlines():
        record = json.loads(line[9:])
        event = {key: value for key, value in record.items() if key not in ("seq", "time")}
        assert on_disk(event_to_json(event_from_json(event))) == event
        found.add(record["event"])
    assert found == set(EVENTS), "the ledger holds every event"


@pytest.mark.parametrize(("name", "field"), [(n, f) for n, record in RECORDS.items() for f in record if f != "event"])
def test_a_missing_field_is_named_unless_it_has_a_default(name, field):
    record = {key: value for key, value in RECORDS[name].items() if key != field}
    if (name, field) in OPTIONAL:
        assert type(event_from_json(record)) is EVENTS[name]
    else:
        with pytest.raises(ValueError, match=rf"event '{name}' that lacks {field}$"):
            event_from_json(record)


@pytest.mark.parametrize(("name", "field"), [(n, f) for n, record in RECORDS.items() for f in record if f != "event"])
@pytest.mark.parametrize("wrong", [None, [1], {"x": 1}])
def test_a_field_of_the_wrong_type_is_named(name, field, wrong):
    if (field, wrong) == ("manifest", {"x": 1}):
        pytest.skip("a manifest may hold anything")
    with pytest.raises(ValueError, match=rf"event '{name}' whose {field} cannot be read"):
        event_from_json({**RECORDS[name], field: wrong})


@pytest.mark.parametrize(
    ("name", "field", "change"),
    [
        ("progress", "progress", {"seconds": "2"}),
        ("progress", "progress", {"extra": 1}),
        ("ended", "outcome", {"state": "RUNNING"}),
        ("ended", "outcome", {"metrics": {"accuracy": "64"}}),
        ("ended", "outcome", {"best_score": None}),
        ("asked", "trial", {"phase": "third"}),
        ("asked", "trial", {"cell": {"model": "tiny"}}),
        ("winner", "cell", {"extra": "x"}),
    ],
)
def test_a_wrong_value_inside_a_field_is_refused(name, field, change):
    with pytest.raises(ValueError, match=rf"event '{name}' whose {field} cannot be read"):
        event_from_json({**RECORDS[name], field: {**RECORDS[name][field], **change}})


@pytest.mark.parametrize("value", [True, "8", 8.5])
def test_a_count_is_a_whole_number(value):
    with pytest.raises(ValueError, match="whose slots"):
        event_from_json({**RECORDS["lanes"], "slots": value})


@pytest.mark.parametrize("name", ["paused", "", None, 7, ["sweep"]])
def test_an_unknown_event_is_named(name):
    with pytest.raises(ValueError, match="unknown event"):
        event_from_json({"event": name})


def test_an_unknown_field_is_named():
    with pytest.raises(ValueError, match=r"event 'started' that lacks id and has unknown idd, when$"):
        event_from_json({"event": "started", "idd": SEARCHED.id, "when": 1})
