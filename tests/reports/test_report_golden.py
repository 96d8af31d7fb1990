"""The text of a small report, word for word, so that a change of any sentence or column is seen in review.

What the numbers should be is tested elsewhere. After a wanted change: `python tests/reports/test_report_golden.py` writes the files anew.
"""

import difflib
import re
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from reports.build import build
from tests.fixtures.bulk_store import write_bulk
from tests.fixtures.report_store import manifest, new_store
from tests.reports.test_report_honesty import METHODS, honest_trials

GOLDEN = Path(__file__).parent / "golden_report"
# The figure's section belongs to the figure's tests.
FIGURES = re.compile(r"(?s)## Parameter efficiency\n.*?(?=## )")


def shown(folder):
    """Texts of a fresh report by name, without what differs from machine to machine: the store's address, the sweep's run."""
    uri = new_store(folder)
    trials, winners = honest_trials()
    del winners["minilm/stsb/full"]
    record = manifest(["minilm"], ["mrpc", "stsb"], METHODS, stamp=["--seeds 3 instead of 5"])
    write_bulk(uri, record, [trial for trial in trials if trial.cell != "minilm/stsb/full"], winners)
    build(uri, "sweep-1", folder / "out")
    paths = [folder / "out" / "summary.md", *sorted((folder / "out" / "tables").iterdir())]
    texts = {path.name: path.read_text(encoding="utf-8").replace(uri, "URI") for path in paths}
    texts["summary.md"] = re.sub(r"run in MLflow: \w+", "run in MLflow: RUN", FIGURES.sub("", texts["summary.md"]))
    return texts


def test_the_report_of_a_small_store_is_word_for_word_what_was_reviewed(tmp_path):
    found = shown(tmp_path)
    expected = {path.name: path.read_text(encoding="utf-8") for path in GOLDEN.iterdir()}
    assert set(found) == set(expected)
    for name, text in found.items():
        changes = list(
            difflib.unified_diff(expected[name].split("\n"), text.split("\n"), "reviewed", "now", lineterm="", n=0)
        )
        if changes:
            pytest.fail(f"{name} changed; if wanted: python {Path(__file__).name}\n" + "\n".join(changes[:20]))


if __name__ == "__main__":
    import shutil
    import tempfile

    shutil.rmtree(GOLDEN, ignore_errors=True)
    GOLDEN.mkdir()
    for name, text in shown(Path(tempfile.mkdtemp())).items():
        (GOLDEN / name).write_text(text, encoding="utf-8", newline="\n")
