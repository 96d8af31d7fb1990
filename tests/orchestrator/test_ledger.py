"""The ledger on a healthy disk, and every way in which its file can be damaged."""

import gc
import json
import tracemalloc
import zlib
from concurrent.futures import ThreadPoolExecutor

import pytest

from orchestrator.ledger import Damaged, Ledger, read, read_history, write_atomic
from search_spaces.events import LedgerRecord, SweepInterrupted, SweepOpened, event_to_json


def event(text):
    """An event that is told from others by its text."""
    return SweepInterrupted(reason=text)


EVENTS = [event(f"{i} ä\n") for i in range(5)]


@pytest.fixture
def folder(tmp_path):
    """A sweep folder with five records, closed."""
    ledger = Ledger.open(tmp_path / "sweep", clock=lambda: 1000.5)
    for each in EVENTS:
        ledger.append(each)
    ledger.close()
    return tmp_path / "sweep"


def line_of(record):
    """The format, written a second time."""
    text = json.dumps(record, sort_keys=True, separators=(",", ":"))
    return b"%08x %s\n" % (zlib.crc32(text.encode()), text.encode())


def test_records_come_back_as_they_were_appended(folder):
    expected = [LedgerRecord(seq=i, time=1000.5, event=each) for i, each in enumerate(EVENTS, 1)]
    assert read(folder) == expected
    ledger = Ledger.open(folder)
    assert list(ledger.records) == expected
    ledger.close()


def test_the_file_holds_one_checksummed_line_of_sorted_json_per_record(folder):
    assert (folder / "ledger.jsonl").read_bytes() == b"".join(
        line_of({**event_to_json(record.event), "seq": record.seq, "time": record.time}) for record in read(folder)
    )


def test_a_reopened_ledger_counts_on(folder):
    ledger = Ledger.open(folder, clock=lambda: 7.0)
    assert [r.seq for r in ledger.append(event("a"), event("b"))] == [6, 7]
    ledger.close()
    assert [(r.seq, r.event.reason, r.time) for r in read(folder)][5:] == [(6, "a", 7.0), (7, "b", 7.0)]


def test_what_append_returns_is_what_a_reader_gets(tmp_path):
    ledger = Ledger.open(tmp_path)
    returned = ledger.append(SweepOpened(manifest={"pair": (1, 2), "nested": {"b": None, "a": True}}))
    assert returned == read(tmp_path) == list(ledger.records)
    ledger.close()


def test_records_are_read_from_the_file_one_by_one_and_in_slices(folder):
    ledger = Ledger.open(folder)
    records = ledger.records
    ledger.append(event("after"))
    ledger.close()
    assert [records[0], *records[1:-1], records[-1]] == list(records) == read(folder)
    assert (len(records), records[-1].event.reason) == (6, "after")
    with pytest.raises(IndexError):
        records[6]


def test_records_stay_in_the_file(folder):
    """A record of 10,000 characters costs a driver 8 bytes."""
    ledger = Ledger.open(folder)
    gc.collect()
    tracemalloc.start()
    try:
        for i in range(200):
            ledger.append(event(f"{i}" * 5000))
        gc.collect()
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    ledger.close()
    assert held < 50_000


def test_a_line_that_is_changed_while_the_ledger_is_used_is_damage(folder):
    ledger = Ledger.open(folder)
    path = folder / "ledger.jsonl"
    path.write_bytes(path.read_bytes().replace(b"2 ", b"3 "))
    with pytest.raises(Damaged, match="changed while it was used"):
        list(ledger.records)
    ledger.close()


def test_a_clock_that_jumps_back_does_not_disturb_the_order(tmp_path):
    times = iter([100.0, 100.0, 5.0, 1e10, 6.0])
    ledger = Ledger.open(tmp_path, clock=lambda: next(times))
    for name in "abcd":
        ledger.append(event(name))
    ledger.close()
    assert [(r.seq, r.event.reason) for r in read(tmp_path)] == [(1, "a"), (2, "b"), (3, "c"), (4, "d")]


def test_threads_leave_no_gap(tmp_path):
    ledger = Ledger.open(tmp_path)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda i: ledger.append(event(f"{i}"), event(f"{i}")), range(100)))
    ledger.close()
    records = read(tmp_path)
    assert [r.seq for r in records] == list(range(1, 201))
    assert all(a.event == b.event for a, b in zip(records[::2], records[1::2], strict=True))


def test_many_events_cost_one_fsync(tmp_path, monkeypatch):
    ledger = Ledger.open(tmp_path)
    calls = []
    monkeypatch.setattr("orchestrator.ledger.os.fsync", calls.append)
    ledger.append(*EVENTS)
    ledger.append()
    assert len(calls) == 1


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), object()])
def test_what_json_cannot_hold_is_refused_and_leaves_no_trace(folder, bad):
    ledger = Ledger.open(folder)
    with pytest.raises((ValueError, TypeError)):
        ledger.append(event("fine"), SweepOpened(manifest={"score": bad}))
    assert ledger.append(event("next"))[0].seq == 6
    ledger.close()
    assert len(read(folder)) == 6


def test_a_crash_at_any_byte_of_the_last_record_keeps_all_before_it(folder):
    path = folder / "ledger.jsonl"
    whole, before = path.read_bytes(), read(folder)[:-1]
    start = whole.rindex(b"\n", 0, -1) + 1
    for cut in range(start, len(whole)):
        path.write_bytes(whole[:cut])
        assert read(folder) == before
        assert path.read_bytes() == whole[:cut], "a reader changes nothing"
        ledger = Ledger.open(folder)
        assert list(ledger.records) == before
        assert ledger.append(event("after"))[0].seq == 5
        ledger.close()
        assert [r.event.reason for r in read(folder)] == [e.reason for e in EVENTS[:4]] + ["after"]


def test_a_crash_within_a_batch_keeps_the_whole_lines_of_it(tmp_path):
    ledger = Ledger.open(tmp_path)
    ledger.append(event("first"))
    ledger.append(*EVENTS)
    ledger.close()
    path = tmp_path / "ledger.jsonl"
    whole = path.read_bytes()
    for cut in range(whole.index(b"\n") + 1, len(whole)):
        path.write_bytes(whole[:cut])
        assert len(read(tmp_path)) == whole[:cut].count(b"\n")


@pytest.mark.parametrize("tail", [b"\0" * 300, b"deadbeef {}\n", b"\r\x85", b"0"])
def test_a_torn_tail_is_kept_aside(folder, tail):
    path = folder / "ledger.jsonl"
    with path.open("ab") as file:
        file.write(tail)
    Ledger.open(folder).close()
    assert (folder / "ledger.jsonl.torn").read_bytes() == tail
    assert len(read(folder)) == 5


def test_a_flipped_bit_before_the_last_line_is_damage_with_a_way_out(folder):
    path = folder / "ledger.jsonl"
    good = path.read_bytes()
    line_starts = [0, *(i + 1 for i, byte in enumerate(good[:-1]) if byte == 10)]
    for position in range(line_starts[2], line_starts[3]):
        path.write_bytes(good[:position] + bytes([good[position] ^ 4]) + good[position + 1 :])
        with pytest.raises(Damaged, match=r"ledger\.jsonl, line 3.*number 2.*head -n 2"):
            read(folder)
    with pytest.raises(Damaged, match="line 3"):
        Ledger.open(folder)
    assert path.read_bytes() != good
    path.write_bytes(good)
    Ledger.open(folder).close()


def test_a_missing_a_repeated_and_a_foreign_record_are_damage(folder):
    path = folder / "ledger.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    for wrong in (lines[:2] + lines[3:], lines + lines[-1:], lines[1:], [*lines, line_of({"event": "x"})]):
        path.write_bytes(b"".join(wrong))
        with pytest.raises(Damaged, match="the record has number"):
            Ledger.open(folder)


@pytest.mark.parametrize("loss", ["missing", "empty", "zeros"])
def test_a_lost_ledger_is_never_taken_for_a_fresh_start(folder, loss):
    path = folder / "ledger.jsonl"
    path.write_bytes(b"\0" * 100 if loss == "zeros" else b"")
    if loss == "missing":
        path.unlink()
    for _ in range(2):
        with pytest.raises(Damaged, match="has begun"):
            Ledger.open(folder)


def test_a_driver_that_died_before_its_first_record_left_a_fresh_sweep(tmp_path):
    Ledger.open(tmp_path).close()
    ledger = Ledger.open(tmp_path)
    assert list(ledger.records) == []
    assert ledger.append(event("sweep"))[0].seq == 1
    ledger.close()


def test_a_folder_without_a_ledger_reads_as_empty(tmp_path):
    assert read(tmp_path) == []


def test_a_ledger_that_is_a_link_is_refused(folder, tmp_path):
    (folder / "ledger.jsonl").rename(tmp_path / "elsewhere")
    (folder / "ledger.jsonl").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic"):
        Ledger.open(folder)


def test_write_atomic_replaces_a_file_and_makes_its_folder(tmp_path):
    path = tmp_path / "new" / "file.json"
    write_atomic(path, "old")
    write_atomic(path, "né")
    assert path.read_text(encoding="utf-8") == "né"
    assert [p.name for p in path.parent.iterdir()] == ["file.json"]


def test_write_atomic_keeps_the_old_file_when_it_fails(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_atomic(path, "old")

    def fail(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("orchestrator.ledger.os.fsync", fail)
    with pytest.raises(OSError, match="No space"):
        write_atomic(path, "new")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(
    ("record", "fault"),
    [
        ({"event": "paused"}, "unknown event, 'paused'"),
        ({"event": "interrupted"}, "lacks reason"),
        ({"event": "interrupted", "reason": 3}, "reason cannot be read"),
        ({"event": "interrupted", "reason": "x", "until": 3}, "has unknown until"),
        ({"event": "started", "id": "0123456789abcdef"}, "no earlier record asks for"),
    ],
)
def test_a_whole_record_that_is_no_event_is_damage_with_a_way_out(folder, record, fault):
    path = folder / "ledger.jsonl"
    path.write_bytes(
        path.read_bytes() + line_of({**record, "seq": 6, "time": 1.0}) + line_of({"event": "later", "seq": 7})
    )
    for reads in (read, read_history, Ledger.open):
        with pytest.raises(Damaged, match=rf"ledger\.jsonl, record 6: it .*{fault}.*head -n 5"):
            reads(folder)
