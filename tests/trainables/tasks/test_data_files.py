"""The user's own tables: what is read, and that every fault is named with file, column and row, before anything starts."""

import json
from pathlib import Path

import pytest

from search_spaces.language import FileTask
from trainables.tasks.task_loading import check_files, describe, load

GOOD = [("a good film", "yes"), ("a bad film", "no")] * 20


def write_csv(path: Path, rows, header="text,label") -> str:
    path.write_text("\n".join([header, *(f'"{text}",{label}' for text, label in rows)]) + "\n", encoding="utf-8")
    return path.name


def make_task(train: str, **fields) -> FileTask:
    return FileTask(**{"name": "films", "train": train, "text": "text", "label": "label", **fields})


def read(task: FileTask, folder: Path, **cuts):
    return load(task, data_dir=None, folder=folder, **{"train_examples": 0, "test_examples": 0, **cuts})


def refuse(task: FileTask, folder: Path, message: str) -> None:
    """Refused early, and again when loading, with the same words."""
    for attempt in (lambda: check_files(task, None, folder), lambda: read(task, folder)):
        with pytest.raises(ValueError, match=message):
            attempt()


def write_as(suffix: str, path: Path, records: list[dict]) -> str:
    path = path.with_suffix(suffix)
    if suffix == ".parquet":
        import pandas

        pandas.DataFrame(records).to_parquet(path)
    elif suffix == ".jsonl":
        path.write_text("".join(json.dumps(record) + "\n" for record in records))
    else:
        separator = {".csv": ",", ".tsv": "\t"}[suffix]
        lines = [separator.join(records[0]), *(separator.join(map(str, record.values())) for record in records)]
        path.write_text("\ufeff" + "\n".join(lines) + "\n", encoding="utf-8")
    return path.name


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_every_format_gives_the_same_task(tmp_path, suffix):
    records = [
        {"id": i, "a": f"text {i}", "b": ["NA", "null", "nan"][i % 3], "y": ["2", "10"][i % 2]} for i in range(40)
    ]
    task = FileTask(name="t", train=write_as(suffix, tmp_path / "train", records), text="a", text_pair="b", label="y")
    check_files(task, None, tmp_path)
    found = read(task, tmp_path)
    order = (*found.split_indices.train, *found.split_indices.validation, *found.split_indices.test)
    parts = (found.train, found.validation, found.test)
    assert [len(part) for part in parts] == [32, 4, 4]
    assert [text for part in parts for text in part.first] == [f"text {i}" for i in order]
    assert [text for part in parts for text in part.second] == [["NA", "null", "nan"][i % 3] for i in order]
    assert [label for part in parts for label in part.labels] == [float(i % 2) for i in order]
    assert found.task.outputs == 2


def test_formats_share_one_fingerprint_and_any_change_makes_another(tmp_path):
    records = [{"text": f"text {i}", "label": i % 2} for i in range(40)]
    names = [write_as(suffix, tmp_path / "train", records) for suffix in (".csv", ".tsv", ".jsonl", ".parquet")]
    prints = {read(make_task(name), tmp_path).fingerprint for name in names}
    assert len(prints) == 1
    assert len(next(iter(prints))) == 16

    def changed(**change) -> str:
        other = [{**record} for record in records]
        other[7] |= change
        return read(make_task(write_as(".csv", tmp_path / "other", other)), tmp_path).fingerprint

    assert changed() in prints
    assert changed(text="text 7 ") not in prints
    assert changed(label=0) not in prints
    assert read(make_task(names[0]), tmp_path, train_examples=20).fingerprint not in prints
    assert read(make_task(names[0], metric="matthews"), tmp_path).fingerprint not in prints


def test_a_target_enters_the_fingerprint_even_when_the_split_stays_the_same(tmp_path):
    rows = [(f"text {i}", i / 4) for i in range(60)]
    one = read(make_task(write_csv(tmp_path / "one.csv", rows), regression=True), tmp_path)
    rows[20] = ("text 20", 5.01)
    other = read(make_task(write_csv(tmp_path / "other.csv", rows), regression=True), tmp_path)
    assert one.split_indices == other.split_indices
    assert one.fingerprint != other.fingerprint


def test_classes_are_numbered_in_sorted_order_numbers_by_value(tmp_path):
    words = [(f"text {i}", ["b", "a", "c"][i % 3]) for i in range(60)]
    numbers = [(f"text {i}", [10, 9, -3][i % 3]) for i in range(60)]
    for rows, expected in ((words, {"b": 1, "a": 0, "c": 2}), (numbers, {10: 2, 9: 1, -3: 0})):
        found = read(make_task(write_csv(tmp_path / "train.csv", rows)), tmp_path)
        assert found.task.outputs == 3
        texts = dict(rows)
        assert found.train.labels == [float(expected[texts[text]]) for text in found.train.first]


def test_a_test_file_is_the_test_split_and_train_keeps_all_its_rows(tmp_path):
    train = write_csv(tmp_path / "train.csv", GOOD)
    test = write_csv(tmp_path / "test.csv", GOOD[:7])
    found = read(make_task(train, test=test), tmp_path)
    assert [len(found.train), len(found.validation), len(found.test)] == [36, 4, 7]
    assert "7 of 7 test examples also stand in train" in found.notes
    assert describe(make_task(train, test=test)).test_source == "test.csv"


def test_a_regression_reads_numbers_and_predicting_the_mean_scores_zero(tmp_path):
    rows = [(f"text {i}", i / 4) for i in range(60)]
    found = read(make_task(write_csv(tmp_path / "train.csv", rows), regression=True), tmp_path)
    assert found.task.metrics == ("pearson", "spearman")
    assert (found.task.outputs, found.majority) == (1, 0.0)
    assert found.train.labels == [i / 4 for i in found.split_indices.train]


def test_the_majority_score_is_the_share_of_train_s_commonest_class_in_test(tmp_path):
    train = write_csv(tmp_path / "train.csv", GOOD + [("another", "no")] * 6)
    test = write_csv(tmp_path / "test.csv", [("x", "no")] + [("y", "yes")] * 3)
    assert read(make_task(train, test=test), tmp_path).majority == 25.0


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([*GOOD, ("", "no")], r"train\.csv: row 41, column 'text': is empty"),
        ([*GOOD, ("  ", "no")], r"row 41, column 'text': is empty"),
        ([*GOOD[:3], ("x", ""), *GOOD], r"train\.csv: row 4, column 'label': the label is missing"),
        ([(f"x {i}", -1) for i in range(30)], r"every label is -1, so the file has no labels"),
        ([("x", "yes")] * 30, r"train\.csv: column 'label': every label is 'yes'"),
        ([(f"x {i}", i / 7) for i in range(40)], r"40 different labels in 40 rows; for numbers set regression=True"),
        ([], r"train\.csv: has no examples"),
        ([*GOOD, ("x", "yes,more")], r"row 41 has 3 fields, the header has 2"),
    ],
)
def test_a_fault_in_the_rows_is_named(tmp_path, rows, message):
    refuse(make_task(write_csv(tmp_path / "train.csv", rows)), tmp_path, message)


@pytest.mark.parametrize("target", ["nan", "inf", "high", "1e39"])
def test_a_target_that_is_no_finite_number_is_named(tmp_path, target):
    rows = [*((f"x {i}", i) for i in range(30)), ("y", target)]
    task = make_task(write_csv(tmp_path / "train.csv", rows), regression=True)
    refuse(task, tmp_path, r"train\.csv: row 31, column 'label'.*is no finite number")


def test_a_target_with_a_comma_comes_with_advice(tmp_path):
    rows = [*((f"x {i}", i) for i in range(30)), ("y", '"3,5"')]
    task = make_task(write_csv(tmp_path / "train.csv", rows), regression=True)
    refuse(task, tmp_path, "'3,5' is no finite number; write numbers with a decimal point")


def test_a_constant_target_is_refused(tmp_path):
    rows = [(f"x {i}", 2.5) for i in range(30)]
    refuse(make_task(write_csv(tmp_path / "train.csv", rows), regression=True), tmp_path, "every target is 2.5")


def test_a_class_of_the_test_file_that_train_lacks_is_refused_and_the_other_way_round_a_note(tmp_path):
    train = write_csv(tmp_path / "train.csv", GOOD)
    more = write_csv(tmp_path / "more.csv", [*GOOD, ("x", "maybe")])
    refuse(
        make_task(train, test=more),
        tmp_path,
        r"more\.csv: label 'maybe' of column 'label' does not occur in .*train\.csv",
    )
    found = read(make_task(more, test=train), tmp_path)
    assert found.task.outputs == 3
    assert "train.csv has no example of 'maybe'" in found.notes


def test_columns_that_are_not_there_are_refused_with_those_that_are(tmp_path):
    name = write_csv(tmp_path / "train.csv", GOOD, header="sentence,label")
    refuse(make_task(name), tmp_path, r"column 'text' is not in the header: 'sentence', 'label'")
    refuse(make_task(name, text="sentence", text_pair="other"), tmp_path, r"column 'other' is not in the header")
    twice = write_csv(tmp_path / "twice.csv", GOOD, header="text,text")
    refuse(make_task(twice), tmp_path, r"column 'text' stands twice in the header")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.csv", b"text,label\nfilm,yes\ncaf\xe9,no\n", r"t\.csv: is not UTF-8 text"),
        ("t.csv", b'text,label\n"open,yes\nfilm,no\n', r"t\.csv:\d+: .*quote mark left open"),
        ("t.jsonl", b'{"text": "a", "label": 1}\n{"text": \n', r"t\.jsonl: row 2 is not JSON"),
        ("t.jsonl", b'{"text": "a", "label": 1}\n[1]\n', r"row 2 is no JSON object"),
        ("t.jsonl", b'{"text": "a", "label": 1}\n{"text": "b"}\n', r"row 2 has no 'label'; it has: 'text'"),
        ("t.jsonl", b'{"text": 5, "label": 1}\n', r"row 1, column 'text': is 5, not a text"),
        ("t.jsonl", b'{"text": null, "label": 1}\n', r"row 1, column 'text': is empty"),
        ("t.jsonl", b'{"text": "\\ud800", "label": 1}\n', r"row 1, column 'text': holds half a character"),
        ("t.jsonl", b'{"text": "a", "label": 0.5}\n', r"row 1, column 'label': 0\.5 is no class"),
        ("t.parquet", b"not parquet", r"t\.parquet: is no readable Parquet file"),
        ("t.csv", b"", r"the file has no header"),
    ],
)
def test_a_damaged_file_is_refused_with_the_place(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    refuse(make_task(name), tmp_path, message)


def test_a_truncated_parquet_file_is_refused(tmp_path):
    (tmp_path / "t.parquet").write_bytes(b"PAR1 and nothing else")
    with pytest.raises(ValueError, match=r"t\.parquet: is no readable Parquet file"):
        read(make_task("t.parquet"), tmp_path)


def test_an_absent_file_an_unknown_format_and_one_file_for_both_splits_are_refused(tmp_path):
    refuse(make_task("none.csv"), tmp_path, r"there is no file .*none\.csv")
    refuse(make_task("train.xlsx"), tmp_path, r"must end in \.csv, \.tsv, \.txt, \.jsonl, \.parquet")
    name = write_csv(tmp_path / "train.csv", GOOD)
    refuse(make_task(name, test=name), tmp_path, "train and test are the same file")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"metric": "acuracy"}, r"metric 'acuracy' is not known: did you mean 'accuracy'"),
        ({"metric": "pearson"}, r"does not fit a classification; allowed: accuracy, f1, matthews, macro_f1"),
        ({"metric": "accuracy", "regression": True}, r"does not fit a regression; allowed: pearson, spearman"),
        ({"name": "mrpc"}, r"'mrpc' is a built-in task's name"),
    ],
)
def test_a_metric_or_name_that_does_not_fit_is_refused_without_reading(fields, message):
    with pytest.raises(ValueError, match=message):
        describe(make_task("never-opened.csv", **fields))


def test_f1_is_for_two_classes(tmp_path):
    rows = [(f"x {i}", i % 3) for i in range(60)]
    refuse(
        make_task(write_csv(tmp_path / "train.csv", rows), metric="f1"), tmp_path, "needs two classes and there are 3"
    )


def test_the_default_metric_comes_first_and_a_chosen_one_before_it():
    assert describe(make_task("x.csv")).metrics == ("accuracy", "macro_f1")
    assert describe(make_task("x.csv", metric="matthews")).metrics == ("matthews", "accuracy", "macro_f1")
    assert describe(make_task("x.csv", regression=True, metric="spearman")).metrics == ("spearman", "pearson")


def test_too_few_rows_to_split_are_refused_with_the_task_s_name(tmp_path):
    with pytest.raises(ValueError, match=r"task 'films': 10 examples are too few"):
        read(make_task(write_csv(tmp_path / "train.csv", GOOD[:10])), tmp_path)


def test_a_nearly_one_sided_task_is_noted(tmp_path):
    rows = [(f"x {i}", "rare" if i % 20 == 0 else "common") for i in range(400)]
    found = read(make_task(write_csv(tmp_path / "train.csv", rows)), tmp_path)
    assert "95.1 % of the train examples have the same label" in found.notes
