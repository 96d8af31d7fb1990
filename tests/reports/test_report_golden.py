"""The text of a small report, word for word, so that a change of any sentence or column is seen in review.

Numbers may differ by what another CPU computes. What they should be is tested elsewhere. After a wanted change,
`python tests/reports/test_report_golden.py` writes the files anew.
"""

import re
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from reports.build import summary, write_tables
from reports.data.store import read
from reports.statistics.analysis import analyze
from tests.fixtures.bulk_store import write_bulk
from tests.fixtures.golden_text import all_changes, changes, numbers_agree
from tests.fixtures.report_store import manifest, new_store
from tests.reports.test_report_honesty import METHODS, honest_trials

GOLDEN = Path(__file__).parent / "golden_report"
RENEW = f"python {Path(__file__).relative_to(Path(__file__).parents[2])}"


def shown(folder):
    """Texts of a fresh report by name, without what differs from machine to machine: the store's address, the sweep's run."""
    uri = new_store(folder)
    trials, winners = honest_trials()
    del winners["minilm/stsb/full"]
    record = manifest(["minilm"], ["mrpc", "stsb"], METHODS, stamp=["--seeds 3 instead of 5"])
    write_bulk(uri, record, [trial for trial in trials if trial.cell != "minilm/stsb/full"], winners)
    sweep = analyze(read(uri, "sweep-1"))
    (folder / "tables").mkdir()
    write_tables(sweep, folder / "tables")
    texts = {path.name: path.read_text(encoding="utf-8") for path in sorted((folder / "tables").iterdir())}
    text = re.sub(r"run in MLflow: \w+", "run in MLflow: RUN", summary(sweep).replace(uri, "URI"))
    return {"summary.md": text, **texts}


def read_reviewed():
    return {path.name: path.read_text(encoding="utf-8") for path in GOLDEN.iterdir()}


def check(reviewed, now):
    if found := all_changes(reviewed, now):
        pytest.fail(
            "\n".join([f"the report changed; if that is wanted, renew the files with: {RENEW}", *found]), pytrace=False
        )


def test_the_report_of_a_small_store_is_word_for_word_what_was_reviewed(tmp_path):
    check(read_reviewed(), shown(tmp_path))


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("differences.csv", "86.09672398118586", f"{86.09672398118586 * 1.001!r}"),
        ("differences.csv", "86.09672398118586", f"{86.09672398118586 * (1 + 1e-8)!r}"),
        ("trials.csv", "0.0001", "0.0001001"),
        ("results.csv", "22713216", "22713217"),
        ("search.tex", "& 14.60 ", "& 14.62 "),
        ("configurations.tex", "lr = 0.0001", "lr = 0.0002"),
        ("summary.md", "1,020,000", "1,020,001"),
        ("summary.md", "optimistic, and no results", "optimistic and no results"),
        ("differences.tex", "90.00 [85.58, 94.42]", "90.00 [85.68, 94.42]"),
        ("differences.tex", "Behind the best", "Before the best"),
        ("budget.csv", '"planned",', ""),
    ],
)
def test_a_changed_number_or_word_is_found_and_the_message_says_how_to_renew(name, old, new):
    reviewed = read_reviewed()
    assert old in reviewed[name]
    with pytest.raises(pytest.fail.Exception) as found:
        check(reviewed, {**reviewed, name: reviewed[name].replace(old, new, 1)})
    assert RENEW in str(found.value)
    assert f"{name}, now" in str(found.value)


def test_a_new_or_missing_line_is_found_and_hides_no_other_change():
    before = "a 1.25\nb 2.50\nc 3.75"
    assert changes("x.md", before, "a 1.25\nnew\nb 2.50\nc 3.75")[3:] == ["+new"]
    assert changes("x.md", before, "a 1.26\nc 3.79")[3:] == ["-b 2.50", "-c 3.75", "+c 3.79"]


def test_a_new_or_missing_file_is_found_and_the_message_says_how_to_renew():
    reviewed = read_reviewed()
    for before, now, line in (
        (reviewed, {**reviewed, "more.csv": ""}, "new file: more.csv"),
        ({**reviewed, "more.csv": ""}, reviewed, "file is gone: more.csv"),
    ):
        with pytest.raises(pytest.fail.Exception) as found:
            check(before, now)
        assert RENEW in str(found.value)
        assert line in str(found.value)


def test_the_last_bits_of_another_cpu_are_no_change():
    reviewed = read_reviewed()
    now = dict(reviewed)
    for name, old, new in (
        ("differences.csv", "86.09672398118586", "86.09672398118585"),
        ("results.csv", "90.5,0.5,", "90.50000000000001,0.5000000000000001,"),
        ("search.tex", "& 14.60 ", "& 14.61 "),
        ("differences.tex", "[85.58, 94.42]", "[85.57, 94.42]"),
    ):
        assert old in now[name]
        now[name] = now[name].replace(old, new)
    check(reviewed, now)


@pytest.mark.parametrize(
    ("reviewed", "now", "rounded", "same"),
    [
        ("0.000902", "0.000903", True, True),
        ("9.99", "10.0", True, True),
        ("9.99", "10.1", True, False),
        ("-0.02", "0.02", True, False),
        ("1e-05", "1.0e-05", False, True),
        ("1e-05", "2e-05", True, False),
        ("0.0", "3e-17", False, True),
        ("0.0", "1e-9", False, False),
    ],
)
def test_how_far_two_printed_numbers_may_differ(reviewed, now, rounded, same):
    assert numbers_agree(reviewed, now, rounded=rounded) == same


if __name__ == "__main__":
    import shutil
    import tempfile

    shutil.rmtree(GOLDEN, ignore_errors=True)
    GOLDEN.mkdir()
    for name, text in shown(Path(tempfile.mkdtemp())).items():
        (GOLDEN / name).write_text(text, encoding="utf-8", newline="\n")
