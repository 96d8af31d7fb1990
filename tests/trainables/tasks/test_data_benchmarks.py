"""Every task of GLUE and SuperGLUE: read from files of the official layout and from the Hub's, and planned."""

import json
from pathlib import Path

import pytest

from orchestrator.planning.preview import plan_text
from search_spaces.language import Recipe
from tests.fixtures import benchmark_files
from tests.fixtures.benchmark_files import DEV, TRAIN, text
from tests.fixtures.run_options import make_options
from tests.fixtures.spaces import make_space, plan_of
from trainables.tasks import TASKS, glue, superglue
from trainables.tasks.task_data import MissingData
from trainables.tasks.task_loading import check_files, load

NAMES = [*benchmark_files.GLUE, *benchmark_files.SUPERGLUE]
SINGLE = ("cola", "sst2")


def read(task: str, folder: Path):
    return load(task, data_dir=folder, folder=folder, train_examples=0, test_examples=0)


def test_there_is_a_stand_in_for_every_task_of_both_benchmarks():
    assert sorted(NAMES) == sorted(name for name, task in TASKS.items() if task.source in ("glue", "superglue"))
    assert {row.folder for row in glue.ROWS} == {
        *("CoLA", "SST-2", "MRPC", "STS-B", "QQP", "MNLI", "QNLI", "RTE", "WNLI")
    }, "the nine of GLUE"


@pytest.mark.parametrize("task", NAMES)
def test_files_of_the_official_layout_are_read_and_the_dev_split_is_the_test_split(task, tmp_path):
    benchmark_files.write(tmp_path, task)
    check_files(task, tmp_path, tmp_path)
    found = read(task, tmp_path)
    assert (len(found.train), len(found.validation), len(found.test)) == (TRAIN - 6, 6, DEV)
    word, blank = ("bed: ", "") if task == "wic" else ("", " " if task == "sst2" else "")
    assert found.test.first == [word + text("dev", i) + blank for i in range(DEV)]
    assert found.test.second == (None if task in SINGLE else [word + text("dev", i, 1) for i in range(DEV)])
    outputs = 3 if task in ("mnli", "mnli_mm", "cb") else 2
    expected = [1.0, 4.25] if task == "stsb" else [float(c) for c in range(outputs)]
    assert found.test.labels == [expected[i % len(expected)] for i in range(DEV)]
    assert found.task.outputs == (1 if task == "stsb" else outputs)
    assert len(found.task.classes) == (0 if task == "stsb" else outputs)


def test_the_names_of_the_classes_are_in_the_order_of_the_files_labels():
    for row in (*glue.ROWS, *superglue.ROWS):
        words = [word for word in row.words if isinstance(word, str) and not word.isdigit()]
        assert not words or row.task.classes == row.words


def test_the_scores_are_those_of_the_benchmarks():
    metrics = {name: TASKS[name].metrics for name in NAMES}
    assert metrics == {
        "cola": ("matthews", "accuracy"),
        "mrpc": ("accuracy", "f1"),
        "stsb": ("pearson", "spearman"),
        "qqp": ("accuracy", "f1"),
        "cb": ("accuracy", "macro_f1"),
        **dict.fromkeys(("rte", "sst2", "mnli", "mnli_mm", "qnli", "wnli", "boolq", "wic"), ("accuracy",)),
    }


@pytest.mark.parametrize("task", NAMES)
def test_every_task_is_planned_from_a_folder_of_its_files(task, tmp_path):
    benchmark_files.write(tmp_path / "data", task)
    space = make_space(tasks=(task,), recipe=Recipe(epochs=8, train_examples={task: 40}))
    plan = plan_of(space, data_dir=tmp_path / "data", tasks=[task])
    told = plan_text(plan, make_options(tmp_path, data_dir=tmp_path / "data"))
    assert f"{TASKS[task].title} ({TASKS[task].metrics[0]}, test: {TASKS[task].test_source}, at most 40 train" in told
    with pytest.raises(MissingData, match=rf"{task!r}: .* is missing; --data-dir must hold"):
        plan_of(space, data_dir=tmp_path / "nowhere")


def test_both_tasks_of_mnli_train_and_are_validated_alike(tmp_path):
    matched, mismatched = (read(task, benchmark_files.write(tmp_path, task)) for task in ("mnli", "mnli_mm"))
    assert (matched.train, matched.validation) == (mismatched.train, mismatched.validation)
    (tmp_path / "MNLI/dev_mismatched.tsv").unlink()
    assert read("mnli", tmp_path) == matched
    with pytest.raises(MissingData, match=r"MNLI/dev_mismatched\.tsv is missing"):
        check_files("mnli_mm", tmp_path, tmp_path)


def test_a_few_broken_lines_of_qqp_are_left_out_as_in_the_hub_s_copy(tmp_path):
    """A question with a line break is two lines with too few fields. In other tasks, and if there are many, that is an error."""
    path = benchmark_files.write(tmp_path, "qqp") / "QQP/train.tsv"
    whole, broken = path.read_text(), "99\t199\t299\tWhat is\n\tWhat is it?\t0\n"
    path.write_text(whole + broken)
    assert len(read("qqp", tmp_path).train) == TRAIN - 6
    path.write_text(whole + 51 * broken)
    with pytest.raises(ValueError, match=rf"train\.tsv:{TRAIN + 102}: 4 tab-separated fields instead of 6"):
        read("qqp", tmp_path)
    path.write_text(whole + "1\t2\t3\ta\tb\tc\t0\n")
    with pytest.raises(ValueError, match=rf"train\.tsv:{TRAIN + 2}: 7 tab-separated fields instead of 6"):
        read("qqp", tmp_path)
    path = benchmark_files.write(tmp_path, "qnli") / "QNLI/train.tsv"
    path.write_text(path.read_text() + "9\tWhat is\n")
    with pytest.raises(ValueError, match=rf"train\.tsv:{TRAIN + 2}: 2 tab-separated fields instead of 4"):
        read("qnli", tmp_path)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", r"val\.jsonl:1: is no JSON object"),
        ('["a"]', r"val\.jsonl:1: the field 'question' is missing or no text"),
        ('{"question": "a", "label": true}', r"val\.jsonl:1: the field 'passage' is missing or no text"),
        ('{"question": "a", "passage": "b"}', r"val\.jsonl:1: label 'None', should be false or true"),
        ('{"question": "a", "passage": "b", "label": 1}', r"val\.jsonl:1: label '1', should be false or true"),
        ('{"question": "a", "passage": "b", "label": "true"}', r"label 'true', should be false or true"),
    ],
)
def test_a_damaged_line_of_superglue_is_named_before_anything_starts(line, message, tmp_path):
    path = benchmark_files.write(tmp_path, "boolq") / "BoolQ/val.jsonl"
    path.write_text(line + "\n" + path.read_text())
    with pytest.raises(ValueError, match=message):
        check_files("boolq", tmp_path, tmp_path)


class Table(dict):
    """A split as the library `datasets` returns it, as far as the readers use it."""


def hub_split(fields: tuple[str, ...], classes: int) -> Table:
    columns = {name: [text("dev", i, place) for i in range(DEV)] for place, name in enumerate(fields)}
    return Table({**columns, "label": [i % classes for i in range(DEV)]})


@pytest.mark.parametrize(
    ("module", "task", "config", "dev", "fields"),
    [
        (glue, "sst2", "sst2", "validation", ("sentence",)),
        (glue, "qqp", "qqp", "validation", ("question1", "question2")),
        (glue, "mnli", "mnli", "validation_matched", ("premise", "hypothesis")),
        (glue, "mnli_mm", "mnli", "validation_mismatched", ("premise", "hypothesis")),
        (glue, "qnli", "qnli", "validation", ("question", "sentence")),
        (glue, "wnli", "wnli", "validation", ("sentence1", "sentence2")),
        (superglue, "boolq", "boolq", "validation", ("question", "passage")),
        (superglue, "cb", "cb", "validation", ("premise", "hypothesis")),
    ],
)
def test_the_hub_s_names_of_columns_and_splits_are_read(module, task, config, dev, fields, monkeypatch):
    def read_splits(name, repo, wanted, splits, files):
        assert (name, repo, wanted, tuple(splits)) == (task, module.HUB, config, ("train", dev))
        return [hub_split(fields, TASKS[task].outputs)] * 2

    monkeypatch.setattr(module, "read_splits", read_splits)
    _, found = module.read(module.row(task), None)
    assert found.first == [text("dev", i) for i in range(DEV)]
    assert found.second == ([text("dev", i, 1) for i in range(DEV)] if len(fields) > 1 else None)
    assert found.labels == [float(i % TASKS[task].outputs) for i in range(DEV)]


def test_a_folder_of_the_hub_s_layout_is_read_as_the_files_are(tmp_path):
    """WiC through the library itself: Parquet files, one configuration per task."""
    import pyarrow
    import pyarrow.parquet

    files = benchmark_files.write(tmp_path / "files", "wic")
    (tmp_path / "hub/wic").mkdir(parents=True)
    listed = []
    for part, name in (("train", "train"), ("val", "validation")):
        records = [json.loads(line) for line in (files / f"WiC/{part}.jsonl").read_text().splitlines()]
        columns = {key: [record[key] for record in records] for key in records[0]}
        table = pyarrow.table({**columns, "label": [int(label) for label in columns["label"]]})
        pyarrow.parquet.write_table(table, tmp_path / f"hub/wic/{name}-00000-of-00001.parquet")
        listed.append(f"  - split: {name}\n    path: wic/{name}-*\n")
    (tmp_path / "hub/README.md").write_text(f"---\nconfigs:\n- config_name: wic\n  data_files:\n{''.join(listed)}---\n")
    row = superglue.row("wic")
    assert superglue.read(row, None, str(tmp_path / "hub")) == superglue.read(row, files)
