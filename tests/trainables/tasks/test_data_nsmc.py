"""NSMC: the official files as three tasks, the real ones where they are."""

import os
from pathlib import Path

import pytest

from trainables.tasks import TASKS, nsmc_reviews
from trainables.tasks.task_data import MissingData
from trainables.tasks.task_loading import check_files, load

ROOT = Path(__file__).parents[3]
REAL = Path(os.environ.get("PEFT_NSMC_DIR", ROOT / "../shared/data/nsmc"))
needs_nsmc = pytest.mark.skipif(not REAL.is_dir(), reason="needs NSMC's files: set PEFT_NSMC_DIR to their folder")
HEADER = "id\tdocument\tlabel\n"


def write(folder, train, test, header=HEADER):
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in zip(nsmc_reviews.FILES, (train, test), strict=True):
        (folder / name).write_text(header + "".join(f"{i}\t{text}\t{label}\n" for i, (text, label) in enumerate(rows)))
    return folder


def rows(number):
    return [(f'리뷰 "{i}"', i % 2) for i in range(number)]


def test_a_smaller_task_is_the_beginning_of_a_larger_one(tmp_path, monkeypatch):
    monkeypatch.setattr(nsmc_reviews, "THOUSANDS", (1, 2, 3))
    write(tmp_path / "nsmc", rows(3000), [("", 1), ("NA", 0)])
    (small, test), (large, same) = (nsmc_reviews.read(task, tmp_path) for task in nsmc_reviews.TASKS[::2])
    assert (len(small), len(large)) == (1000, 3000)
    assert large.first[:1000] == small.first == [text for text, _ in rows(1000)]
    assert large.labels[:1000] == small.labels
    assert (test.first, test.labels) == (same.first, same.labels) == (["", "NA"], [1.0, 0.0])


def test_files_that_are_missing_short_or_others_are_named(tmp_path):
    task = TASKS["nsmc_50k"]
    with pytest.raises(MissingData, match=r"give --data-dir with nsmc/ratings_train\.txt"):
        nsmc_reviews.read(task, None)
    with pytest.raises(MissingData, match=r"ratings_train\.txt is missing"):
        check_files("nsmc_50k", tmp_path, tmp_path)
    write(tmp_path, rows(60), rows(60))
    check_files("nsmc_50k", tmp_path, tmp_path)
    with pytest.raises(ValueError, match=r"has only 60 of 50000 reviews"):
        nsmc_reviews.read(task, tmp_path)
    write(tmp_path, rows(60), rows(60), "id\ttext\tlabel\n")
    with pytest.raises(ValueError, match=r"ratings_train\.txt:1: no column is named 'document'"):
        check_files("nsmc_50k", tmp_path, tmp_path)


@needs_nsmc
def test_the_real_files_are_split_and_cut():
    found = load("nsmc_50k", data_dir=REAL, folder=ROOT, train_examples=200, test_examples=100)
    assert (len(found.train), len(found.validation), len(found.test)) == (200, 50, 100)
    assert found.task.metrics == ("accuracy", "precision", "recall", "f1")
    assert found.majority == pytest.approx(50, abs=2)
    assert max(found.split_indices.train) < 50_000
    train, test = nsmc_reviews.read(TASKS["nsmc_150k"], REAL)
    assert (len(train), len(test)) == (150_000, 50_000)
    assert (train.labels.count(0.0), test.labels.count(0.0)) == (75_173, 24_827)
