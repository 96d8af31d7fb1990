"""What the user's own files mean: which labels are one class, which class is positive, which rows count, what is pointed out."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from orchestrator.planning.plan import make_plan
from orchestrator.planning.preview import plan_text
from orchestrator.planning.sweep_manifest import folder_name, space_json
from search_spaces.language import Budget, FileTask, Recipe, Space, choice, method
from tests.fixtures.run_options import make_options
from trainables.tasks.forms.classification import CLASSIFICATION
from trainables.tasks.splits import split
from trainables.tasks.task_loading import check_files, load


def write(path: Path, labels, suffix: str = ".csv") -> str:
    path = path.with_suffix(suffix)
    if suffix == ".jsonl":
        lines = [json.dumps({"text": f"text {i}", "label": label}) for i, label in enumerate(labels)]
    else:
        lines = ["text,label", *(f"text {i},{label}" for i, label in enumerate(labels))]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path.name


def read(folder: Path, train: str, **fields):
    task = FileTask(name="mine", train=train, text="text", label="label", **fields)
    return load(task, data_dir=None, folder=folder, train_examples=0, test_examples=0)


def num_examples(found) -> int:
    return sum(map(len, (found.train, found.validation, found.test)))


@pytest.mark.parametrize(
    ("suffix", "labels"),
    [
        (".csv", ["0", "1", "1.0", "0.0", "+1", "00"]),
        (".jsonl", [0, 1, 1.0, "0", "1.0", "0.0"]),
        (".jsonl", [0, True, 1, False]),
        (".csv", ["-1", "1", "-1.0", "1.00"]),
    ],
)
def test_numbers_are_compared_as_numbers(tmp_path, suffix, labels):
    found = read(tmp_path, write(tmp_path / "train", labels * 10, suffix))
    assert found.task.outputs == 2
    assert any("are read as one class, the number" in note for note in found.notes)


def test_texts_are_compared_in_one_unicode_form(tmp_path):
    found = read(tmp_path, write(tmp_path / "train", ["caf\u00e9", "cafe\u0301", "bar", "bar"] * 10))
    assert found.task.classes == ("bar", "caf\u00e9")


def test_minus_one_is_a_class_unless_every_label_is(tmp_path):
    found = read(tmp_path, write(tmp_path / "train", [-1, 0, 1] * 10))
    assert found.task.classes == ("-1", "0", "1")
    with pytest.raises(ValueError, match=r"every label is -1, so the file has no labels"):
        read(tmp_path, write(tmp_path / "none", [-1] * 30))


@pytest.mark.parametrize(
    ("pair", "noted"),
    [
        (("Y", "Yes"), "'Y' and 'Yes'"),
        (("yes", "Yes"), "'Yes' and 'yes'"),
        (("not spam", "not_spam"), "'not spam' and 'not_spam'"),
        (("ham", "ham\u200b"), "'ham' and 'ham\\u200b'"),
        (("a", "b"), None),
        (("C", "C++"), "'C' and 'C++'"),
    ],
)
def test_spellings_that_may_be_one_class_are_pointed_out(tmp_path, pair, noted):
    found = read(tmp_path, write(tmp_path / "train", [*pair, "other"] * 10))
    told = [note for note in found.notes if "are different classes" in note]
    assert told == (
        [] if noted is None else [f"{noted} are different classes; if they are one, give them one spelling"]
    )


def test_the_positive_class_is_the_one_that_the_user_names(tmp_path):
    labels = ["alarm", *["fine"] * 9] * 6
    found = read(tmp_path, write(tmp_path / "train", labels), metric="f1", positive="alarm")
    assert (found.task.classes, found.task.positive) == (("fine", "alarm"), "alarm")
    assert found.majority == 0.0, "a constant answer finds no alarm"


def test_a_positive_class_that_is_not_evident_is_asked_for(tmp_path):
    name = write(tmp_path / "train", ["alarm", *["fine"] * 9] * 6)
    with pytest.raises(ValueError, match=r"task 'mine': .*say which: positive='alarm' or positive='fine'"):
        read(tmp_path, name, metric="f1")
    with pytest.raises(ValueError, match=r"positive = 'alam' is none of the classes 'alarm', 'fine'"):
        read(tmp_path, name, metric="f1", positive="alam")
    with pytest.raises(ValueError, match="a regression has no classes"):
        read(tmp_path, name, regression=True, positive="alarm")
    assert read(tmp_path, name).task.positive == "", "accuracy needs none"


@pytest.mark.parametrize(
    ("negative", "positive"),
    [
        ("0", "1"),
        ("no", "Yes"),
        ("False", "True"),
        ("negative", "positive"),
        ("not_anger", "anger"),
        ("non-toxic", "toxic"),
    ],
)
def test_an_evident_positive_class_needs_no_word(tmp_path, negative, positive):
    found = read(tmp_path, write(tmp_path / "train", [negative, positive] * 20), metric="f1")
    assert found.task.classes == (negative, positive)
    assert found.task.positive == positive


def test_a_class_name_cannot_steer_the_terminal(tmp_path):
    found = read(tmp_path, write(tmp_path / "train", ["a\x1b[31m", "b", "c" * 99] * 10))
    assert all(note.isprintable() and len(note) < 200 for note in found.notes)
    assert r"a\x1b[31m 10" in found.notes[0]


def test_a_positive_number_may_be_written_in_another_form(tmp_path):
    found = read(tmp_path, write(tmp_path / "train", [1, 2] * 20), metric="f1", positive="1.0")
    assert (found.task.classes, found.task.positive) == (("2", "1"), "1")


def test_text_pair_and_label_are_different_columns():
    for fields in ({"text_pair": "label"}, {"text_pair": "text"}):
        with pytest.raises(ValueError, match="text, text_pair and label must be different columns"):
            FileTask(name="leak", train="t.csv", text="text", label="label", **fields)
    with pytest.raises(ValueError, match="must be different columns"):
        FileTask(name="leak", train="t.csv", text="label", label="label")


def three_holes(folder: Path) -> str:
    rows = [("" if i in (5, 9, 40) else f"text {i}", i % 2) for i in range(60)]
    (folder / "holes.csv").write_text("text,label\n" + "".join(f"{text},{label}\n" for text, label in rows))
    return "holes.csv"


def test_all_rows_without_a_text_are_named_at_once_and_can_be_dropped(tmp_path):
    name = three_holes(tmp_path)
    with pytest.raises(ValueError, match=r"3 rows \(6, 10, 41\), column 'text': is empty; .*missing='drop'"):
        read(tmp_path, name)
    found = read(tmp_path, name, missing="drop")
    assert num_examples(found) == 57
    assert "3 of 60 rows of holes.csv lack a text or label and are dropped" in found.notes


def test_empty_lines_of_a_spreadsheet_are_no_rows(tmp_path):
    (tmp_path / "t.csv").write_text("text,label\n" + "".join(f"text {i},{i % 2}\n" for i in range(40)) + ",\n,\n")
    assert num_examples(read(tmp_path, "t.csv")) == 40


def test_a_file_in_another_encoding_is_read_when_it_is_named(tmp_path):
    text = "text,label\n" + "".join(f"caf\u00e9 {i},{i % 2}\n" for i in range(40))
    (tmp_path / "t.csv").write_bytes(text.encode("mac_roman"))
    with pytest.raises(ValueError, match=r"t\.csv: is not UTF-8 text \(line 2 has the bytes 8e 20 30 2c\).*encoding="):
        read(tmp_path, "t.csv")
    assert read(tmp_path, "t.csv", encoding="mac_roman").train.first[0].startswith("caf\u00e9")
    with pytest.raises(ValueError, match="Python knows no such encoding"):
        read(tmp_path, "t.csv", encoding="utf-9")


def test_a_file_without_a_header_is_read_when_its_columns_are_named(tmp_path):
    (tmp_path / "sms.tsv").write_text("".join(f"{['ham', 'spam'][i % 2]}\ttext {i}\n" for i in range(40)))
    with pytest.raises(ValueError, match=r"column 'text' is not in the header.*FileTask\(header="):
        read(tmp_path, "sms.tsv")
    found = read(tmp_path, "sms.tsv", header=("label", "text"))
    assert num_examples(found) == 40


def test_a_text_of_any_length_is_read(tmp_path):
    long = "word " * 30_000
    (tmp_path / "t.csv").write_text("text,label\n" + "".join(f"{long if i == 3 else i},{i % 2}\n" for i in range(40)))
    found = read(tmp_path, "t.csv")
    assert max(len(text) for part in (found.train, found.validation, found.test) for text in part.first) > 131_072


def test_quote_marks_that_pandas_writes_into_tsv_are_pointed_out(tmp_path):
    import pandas

    rows = pandas.DataFrame({"text": [f'he said "now" {i}' for i in range(40)], "label": [0, 1] * 20})
    rows.to_csv(tmp_path / "t.tsv", sep="\t", index=False)
    note = read(tmp_path, "t.tsv").notes[0]
    assert note.startswith("40 of 40 texts of t.tsv are in quote marks")
    assert "FileTask(separator='\\t')" in note
    rows.loc[4, "text"] = "two\nlines"
    rows.to_csv(tmp_path / "lines.tsv", sep="\t", index=False)
    with pytest.raises(
        ValueError, match=r"row 5 has 1 fields, the header has 2; if a text holds a tab or a line break"
    ):
        read(tmp_path, "lines.tsv")
    found = read(tmp_path, "lines.tsv", separator="\t")
    texts = {text for part in (found.train, found.validation, found.test) for text in part.first}
    assert texts == {"two\nlines", *(f'he said "now" {i}' for i in range(40) if i != 4)}


@pytest.mark.parametrize(("separator", "suffix"), [(";", ".csv"), ("|", ".txt"), (",", ".tsv")])
def test_a_separator_that_the_user_names_is_that_of_any_file(tmp_path, separator, suffix):
    rows = "".join(f'"a text{separator} {i}"{separator}{i % 2}\n' for i in range(40))
    (tmp_path / f"t{suffix}").write_text(f"text{separator}label\n{rows}")
    found = read(tmp_path, f"t{suffix}", separator=separator)
    assert len(found.train) + len(found.validation) + len(found.test) == 40
    assert all(text.startswith(f"a text{separator} ") for text in found.train.first)
    with pytest.raises(ValueError, match=r"separator = ':': must be one of"):
        read(tmp_path, f"t{suffix}", separator=":")


@pytest.mark.parametrize("position", range(0, 100, 7))
def test_a_class_with_one_row_leaves_the_others_stratified(position):
    labels = [2.0 if i == position else float(i % 100 == 1) for i in range(1000)]
    found = split(labels, None, CLASSIFICATION, 0, 0)
    assert Counter(labels[i] for i in found.train)[2.0] == 1
    for part in (found.validation, found.test):
        assert Counter(labels[i] for i in part)[1.0] == 1


def test_more_classes_than_places_give_each_class_at_most_its_share():
    labels = [float(i % 67) for i in range(201)]
    found = split(labels, None, CLASSIFICATION, 0, 0)
    for part in (found.validation, found.test):
        assert set(Counter(labels[i] for i in part).values()) == {1}
    assert {labels[i] for i in found.train} == set(labels), "every class can be learnt"
    assert sorted(found.train + found.validation + found.test) == list(range(201))


def test_splits_that_were_stratified_before_are_the_same():
    from sklearn.model_selection import train_test_split

    labels = [float(i % 3 == 0) for i in range(500)]
    train, validation = train_test_split(
        np.arange(500), test_size=50, random_state=20_000, stratify=np.array(labels, int)
    )
    found = split(labels, [0.0, 1.0], CLASSIFICATION, 0, 0)
    assert (found.train, found.validation) == (tuple(sorted(train)), tuple(sorted(validation)))


def test_classes_that_a_split_lacks_are_named(tmp_path):
    found = read(tmp_path, write(tmp_path / "train", ["a", "b"] * 100 + ["once"]))
    assert "the validation split has no example of 1 of 3 classes: once" in found.notes
    assert "the test split has no example of 1 of 3 classes: once" in found.notes


def space_of(folder: Path, **fields) -> Space:
    return Space(
        name="mine",
        models=("bert-base-uncased",),
        tasks=(FileTask(name="urgent", train="train.csv", text="text", label="label", **fields),),
        methods=(method("full"),),
        search={"lr": choice(1e-4), "batch_size": 8},
        recipe=Recipe(epochs=1),
        budget=Budget(trials=1, final_seeds=1),
        folder=folder,
    )


def test_the_plan_lists_the_classes_with_their_counts_and_the_positive_one(tmp_path):
    write(tmp_path / "train", ["alarm", *["fine"] * 9] * 6)
    options = make_options(tmp_path / "runs")
    text = plan_text(make_plan(space_of(tmp_path, metric="f1", positive="alarm"), options), options)
    assert "urgent: 2 classes in train.csv: alarm 6, fine 54" in text
    assert "urgent: f1 is computed for the class 'alarm'" in text


def test_new_fields_with_their_defaults_leave_a_sweep_its_name(tmp_path):
    write(tmp_path / "train", ["0", "1"] * 30)
    assert folder_name(space_of(tmp_path)) == folder_name(space_of(tmp_path, positive="", missing="error"))
    assert folder_name(space_of(tmp_path)) != folder_name(space_of(tmp_path, positive="1"))
    first_release = ["name", "train", "text", "label", "test", "text_pair", "regression", "metric"]
    assert list(space_json(space_of(tmp_path))["tasks"][0]) == first_release


def test_a_check_before_the_start_tells_the_same_as_the_report(tmp_path):
    write(tmp_path / "train", ["Y", "Yes", "N", "No"] * 10)
    task = space_of(tmp_path).tasks[0]
    told = check_files(task, None, tmp_path).notes
    assert told == load(task, data_dir=None, folder=tmp_path, train_examples=0, test_examples=0).notes[: len(told)]
    assert told[0] == "4 classes in train.csv: N 10, No 10, Y 10, Yes 10"
