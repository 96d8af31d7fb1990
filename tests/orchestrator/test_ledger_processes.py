"""The ledger against other processes, kills and full disks: every fault happens in a real process."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from orchestrator.ledger import Damaged, Held, Ledger, read
from search_spaces.events import SweepInterrupted

ROOT = Path(__file__).parents[2]


def start(code, *arguments):
    """A Python process with the project on its path; its standard output is a pipe."""
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


HOLDER = """
import sys, time
from pathlib import Path
from orchestrator.ledger import Ledger
from search_spaces.events import SweepInterrupted, SweepOpened
ledger = Ledger.open(Path(sys.argv[1]))
ledger.append(SweepOpened(manifest={}))
print("held", flush=True)
time.sleep(60)
"""

WRITER = """
import sys
from pathlib import Path
from orchestrator.ledger import Ledger
from search_spaces.events import SweepInterrupted, SweepOpened
ledger = Ledger.open(Path(sys.argv[1]))
for i in range(100000):
    ledger.append(SweepInterrupted(reason=f"{i} " + "x" * 50))
    print(i, flush=True)
"""

LIMITED = """
import resource, sys
from pathlib import Path
from orchestrator.ledger import Ledger
from search_spaces.events import SweepInterrupted, SweepOpened
ledger = Ledger.open(Path(sys.argv[1]))
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, resource.RLIM_INFINITY))
written = 0
try:
    while True:
        ledger.append(SweepInterrupted(reason="x" * 100))
        written += 1
except OSError as error:
    first = error.errno
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
try:
    ledger.append(SweepInterrupted(reason="late"))
    print("accepted")
except OSError as error:
    print(written, len(ledger.records), first, error)
"""


@pytest.fixture
def holder(tmp_path):
    process = start(HOLDER, tmp_path)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_a_second_driver_is_told_who_holds_the_sweep(holder, tmp_path):
    with pytest.raises(Held, match=rf"process {holder.pid}, started 20\d\d-\d\d-\d\d \d\d:\d\d:\d\d"):
        Ledger.open(tmp_path)
    assert len(read(tmp_path)) == 1, "reading needs no lock"


def test_the_same_process_cannot_open_a_sweep_twice(tmp_path):
    first = Ledger.open(tmp_path)
    with pytest.raises(Held, match=f"process {os.getpid()}"):
        Ledger.open(tmp_path)
    first.close()
    Ledger.open(tmp_path).close()


def test_a_killed_holder_frees_the_sweep_at_once(holder, tmp_path):
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    ledger = Ledger.open(tmp_path)
    assert ledger.append(SweepInterrupted(reason="next"))[0].seq == 2
    ledger.close()


def test_a_program_started_by_the_driver_does_not_keep_the_lock(tmp_path):
    ledger = Ledger.open(tmp_path)
    child = subprocess.Popen(["sleep", "30"], close_fds=False)
    ledger.close()
    try:
        Ledger.open(tmp_path).close()
    finally:
        child.kill()
        child.wait()


def test_a_copied_folder_is_free(holder, tmp_path):
    copy = tmp_path.parent / (tmp_path.name + "-copy")
    subprocess.run(["cp", "-r", tmp_path, copy], check=True)
    Ledger.open(copy).close()


@pytest.mark.parametrize(
    "text", ["", "[1]", "null", '"x"', "[" * 200_000, '{"started": "x"}', '{"started": 1e300}', "{}"]
)
def test_a_damaged_lock_file_is_no_error(text, tmp_path):
    ledger = Ledger.open(tmp_path)
    ledger.append(SweepInterrupted(reason="a"))
    (tmp_path / "lock").write_text(text, encoding="utf-8")
    with pytest.raises(Held, match="started unknown"):
        Ledger.open(tmp_path)
    ledger.close()
    (tmp_path / "lock").write_text(text, encoding="utf-8")
    ledger = Ledger.open(tmp_path)
    assert [record.event for record in ledger.records] == [SweepInterrupted(reason="a")]
    ledger.close()


def test_a_failed_open_gives_the_lock_back(tmp_path):
    ledger = Ledger.open(tmp_path)
    ledger.append(SweepInterrupted(reason="a"))
    ledger.close()
    (tmp_path / "ledger.jsonl").rename(tmp_path / "backup")
    with pytest.raises(Damaged):
        Ledger.open(tmp_path)
    (tmp_path / "backup").rename(tmp_path / "ledger.jsonl")
    Ledger.open(tmp_path).close()


def test_no_acknowledged_record_is_lost_when_the_writer_is_killed(tmp_path):
    acknowledged = 0
    for delay in (0.0, 0.02, 0.1):
        process = start(WRITER, tmp_path)
        process.stdout.readline()
        time.sleep(delay)
        process.kill()
        # communicate() alone would miss what readline() has read ahead.
        acknowledged += 1 + process.stdout.read().count("\n")
        process.communicate()
        records = read(tmp_path)
        # The kill may fall between the fsync and the acknowledgement.
        assert acknowledged <= len(records) <= acknowledged + 1
        acknowledged = len(records)
    Ledger.open(tmp_path).close()


def test_a_full_disk_ends_the_writing_and_leaves_only_whole_records(tmp_path):
    output, errors = start(LIMITED, tmp_path).communicate()
    written, kept, number, message = output.split(maxsplit=3)
    assert written == kept, errors
    assert int(number) == 27, "file too large"
    assert "after an earlier failure" in message
    assert len(read(tmp_path)) == int(written) > 0
    assert (tmp_path / "ledger.jsonl").stat().st_size <= 2000
    assert (tmp_path / "ledger.jsonl").read_bytes().endswith(b"\n"), "the half-written line was cut off"
    ledger = Ledger.open(tmp_path)
    ledger.append(SweepInterrupted(reason="later"))
    ledger.close()
    assert not (tmp_path / "ledger.jsonl.torn").exists()


def test_a_failed_fsync_is_final(tmp_path, monkeypatch):
    ledger = Ledger.open(tmp_path)
    ledger.append(SweepInterrupted(reason="a"))
    real = os.fsync
    failures = iter([OSError(5, "Input/output error")])

    def fsync(descriptor):
        error = next(failures, None)
        if error:
            raise error
        real(descriptor)

    monkeypatch.setattr("orchestrator.ledger.os.fsync", fsync)
    with pytest.raises(OSError, match="Input/output"):
        ledger.append(SweepInterrupted(reason="b"))
    with pytest.raises(OSError, match="earlier failure"):
        ledger.append(SweepInterrupted(reason="c"))
    assert [r.event.reason for r in ledger.records] == [r.event.reason for r in read(tmp_path)] == ["a"]
    ledger.close()


def test_an_interrupt_during_a_write_leaves_a_ledger_that_goes_on(tmp_path, monkeypatch):
    ledger = Ledger.open(tmp_path)
    ledger.append(SweepInterrupted(reason="a"))
    real = os.fsync
    interrupts = iter([KeyboardInterrupt])

    def fsync(descriptor):
        for interrupt in interrupts:
            raise interrupt
        real(descriptor)

    monkeypatch.setattr("orchestrator.ledger.os.fsync", fsync)
    with pytest.raises(KeyboardInterrupt):
        ledger.append(SweepInterrupted(reason="lost"))
    ledger.append(SweepInterrupted(reason="interrupted"))
    ledger.close()
    assert [(r.seq, r.event.reason) for r in read(tmp_path)] == [(1, "a"), (2, "interrupted")]
