"""Splits of the user's files by groups or by time, validation files of their own, and examples that are too long."""

from __future__ import annotations

import csv
import json
import random
from pathlib import Path

import pytest

from search_spaces.language import FileTask
from tests.fixtures.encoders import write_tiny
from trainables.tasks import task_loading
from trainables.tasks.tokens import prepare, summarise


def write(path: Path, columns: dict[str, list], suffix: str = ".csv") -> str:
    rows = list(zip(*columns.values(), strict=True))
    if suffix == ".jsonl":
        path.write_text("".join(json.dumps(dict(zip(columns, row, strict=True))) + "\n" for row in rows))
    else:
        with path.open("w", newline="") as file:
            csv.writer(file).writerows([list(columns), *rows])
    return path.name


def load(folder: Path, train: str, *, most: int = 0, **fields):
    task = FileTask(name="task", train=train, text="text", label="label", **fields)
    return task_loading.load(task, data_dir=None, folder=folder, train_examples=most, test_examples=0)


def table(number: int = 400, groups: int = 40, start: int = 0) -> dict[str, list]:
    """Rows whose authors write 1 to many texts each, and whose classes are 20 % and 80 % for every author."""
    draw = random.Random(start)
    authors = [int(groups * draw.random() ** 2) for _ in range(number)]
    return {
        "text": [f"text {start + i}" for i in range(number)],
        "label": ["rare" if i % 5 == 0 else "common" for i in range(number)],
        "author": [f"author {a}" for a in authors],
    }


def authors_of(rows: dict[str, list], part) -> set[str]:
    known = dict(zip(rows["text"], rows["author"], strict=True))
    return {known[text] for text in part.first}


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_rows_of_one_group_are_in_one_split(tmp_path, suffix):
    rows = table()
    found = load(tmp_path, write(tmp_path / f"train{suffix}", rows, suffix), group="author")
    parts = [authors_of(rows, part) for part in (found.train, found.validation, found.test)]
    assert sum(map(len, parts)) == len(set().union(*parts)) == len(set(rows["author"]))
    for part in (found.validation, found.test):
        assert 28 <= len(part) <= 52, "about a tenth of 400"
        assert 0.1 <= 1 - sum(part.labels) / len(part) <= 0.3 or 0.1 <= sum(part.labels) / len(part) <= 0.3
    assert any("rows with the same 'author' stay together" in note for note in found.notes)
    assert not any("also occurs in train" in note for note in found.notes)


def test_a_split_at_random_would_have_shared_groups(tmp_path):
    """The check of the test above can fail."""
    rows = table()
    found = load(tmp_path, write(tmp_path / "train.csv", rows))
    assert authors_of(rows, found.train) & authors_of(rows, found.test)


def test_a_cut_train_split_keeps_the_groups_apart(tmp_path):
    rows = table(1000, 200)
    found = load(tmp_path, write(tmp_path / "train.csv", rows), group="author", most=300)
    assert len(found.train) == 300
    assert not authors_of(rows, found.train) & authors_of(rows, found.validation)


def test_a_group_may_be_larger_than_a_split(tmp_path):
    rows = table(200)
    rows["author"] = ["one"] * 150 + [f"author {i}" for i in range(50)]
    found = load(tmp_path, write(tmp_path / "train.csv", rows), group="author")
    assert "one" in authors_of(rows, found.train)
    assert 15 <= len(found.test) <= 25


def test_a_single_group_cannot_be_split(tmp_path):
    rows = table(60) | {"author": ["me"] * 60}
    with pytest.raises(ValueError, match=r"task 'task': column 'author' has the single value 'me' in the 60 rows"):
        load(tmp_path, write(tmp_path / "train.csv", rows), group="author")


def test_groups_that_the_users_own_files_share_are_counted(tmp_path):
    train = write(tmp_path / "train.csv", table())
    other = table(50, start=1000)
    other["author"][:40] = [f"new {i}" for i in range(40)]
    found = load(tmp_path, train, group="author", test=write(tmp_path / "test.csv", other))
    (note,) = (note for note in found.notes if "also occurs in train" in note)
    shared = len([a for a in other["author"] if a in authors_of(table(), found.train)])
    assert 1 <= shared <= 10
    assert note.startswith(f"{shared} of 50 test examples have a 'author' that also occurs in train")


def dated(number: int) -> dict[str, list]:
    """Rows in random order, two a day."""
    days = [f"2024-{1 + i // 2 // 28:02}-{1 + i // 2 % 28:02}" for i in range(number)]
    random.Random(0).shuffle(days)
    return table(number) | {"day": days}


@pytest.mark.parametrize("as_number", [False, True])
def test_the_latest_rows_are_the_test_split_and_the_latest_of_the_rest_validation(tmp_path, as_number):
    rows = dated(400)
    if as_number:
        rows["day"] = [int(day.replace("-", "")) for day in rows["day"]]
    found = load(tmp_path, write(tmp_path / "train.csv", rows), time="day")
    day = dict(zip(rows["text"], rows["day"], strict=True))
    train, validation, test = ([day[t] for t in part.first] for part in (found.train, found.validation, found.test))
    assert max(train) < min(validation) <= max(validation) < min(test)
    assert (len(train), len(validation), len(test)) == (324, 36, 40)
    assert any(f"{min(test)} to {max(test)}" in note for note in found.notes)


def test_rows_of_the_same_time_are_not_divided(tmp_path):
    rows = table(100) | {"day": [2020] * 70 + [2021] * 20 + [2022] * 10}
    found = load(tmp_path, write(tmp_path / "train.csv", rows), time="day")
    assert (len(found.train), len(found.validation), len(found.test)) == (70, 20, 10)


def test_a_test_file_that_is_older_than_train_is_noted(tmp_path):
    train = write(tmp_path / "train.csv", dated(200))
    test = write(tmp_path / "test.csv", table(40, start=900) | {"day": ["2024-01-02"] * 40})
    notes = load(tmp_path, train, test=test, time="day").notes
    assert any(note.startswith("40 of 40 test examples are older than the newest train example") for note in notes)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (["2024-01-01", "soon"], r"row 2, column 'day': 'soon' is"),
        (["2024-01-01", "7"], r"row 2, column 'day': '7' is another kind of time"),
        (["2024-01-01", ""], r"row 2, column 'day': is empty"),
    ],
)
def test_a_time_that_cannot_be_ordered_is_named(tmp_path, values, message):
    rows = table(40) | {"day": values + ["2024-02-03"] * 38}
    with pytest.raises(ValueError, match=message):
        load(tmp_path, write(tmp_path / "train.csv", rows), time="day")


def test_rows_without_a_group_are_dropped_if_the_user_says_so(tmp_path):
    rows = table(100)
    rows["author"][3] = ""
    found = load(tmp_path, write(tmp_path / "train.csv", rows), group="author", missing="drop")
    assert any("1 of 100 rows of train.csv lack a text, label or 'author'" in note for note in found.notes)


def test_the_users_validation_file_is_the_validation_split(tmp_path):
    rows, own = table(), table(30, start=500)
    found = load(tmp_path, write(tmp_path / "train.csv", rows), validation=write(tmp_path / "dev.csv", own))
    assert found.validation.first == own["text"]
    assert (len(found.train), len(found.test)) == (360, 40)
    assert any("classes in dev.csv" in note for note in found.notes)
    both = load(tmp_path, "train.csv", validation="dev.csv", test=write(tmp_path / "test.csv", table(20, start=700)))
    assert both.train.first == rows["text"]
    assert both.fingerprint != found.fingerprint


def test_a_validation_file_is_checked_like_the_others(tmp_path):
    train = write(tmp_path / "train.csv", table())
    other = table(30) | {"label": ["rare", "odd"] * 15}
    with pytest.raises(ValueError, match=r"dev.csv: label 'odd' .* does not occur in"):
        load(tmp_path, train, validation=write(tmp_path / "dev.csv", other))
    with pytest.raises(ValueError, match="train and validation are the same file"):
        load(tmp_path, train, validation=train)


@pytest.mark.parametrize("fields", [{"group": "a", "time": "b"}, {"group": "label"}, {"time": "label"}])
def test_a_task_is_split_by_one_column_that_is_not_the_label(fields):
    with pytest.raises(ValueError, match=r"group and time|is the label"):
        FileTask(name="task", train="train.csv", text="text", label="label", **fields)


@pytest.mark.parametrize("pairs", [False, True])
def test_texts_that_are_too_long_are_counted_exactly(tmp_path, pairs):
    """Each word is one token; two special tokens are added, three to a pair."""
    model = write_tiny(tmp_path / "model", "bert")
    lengths = [5 + i % 30 for i in range(300)]
    rows = {"text": [" ".join(["good"] * n) for n in lengths], "label": ["a", "b"] * 150}
    fields = {}
    if pairs:
        rows["other"] = ["good bad"] * 300
        fields = {"text_pair": "other"}
    found = load(tmp_path, write(tmp_path / "train.csv", rows), **fields)
    summary = summarise(prepare(found, str(model), 16, tmp_path / "cache"))
    for part, count in summary.cut.items():
        texts = getattr(found, part)
        whole = [len(text.split()) + (5 if pairs else 2) for text in texts.first]
        assert count.examples == len(whole)
        assert count.cut == sum(length > 16 for length in whole) > 0
        assert count.median == sorted(whole)[len(whole) // 2] or len(whole) % 2 == 0
