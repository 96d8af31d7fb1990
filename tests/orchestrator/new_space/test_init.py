"""`init`: what it finds out about a file, and that every space that it writes can be planned and reads the file's rows."""

import csv
import io
import json

import pytest

from orchestrator.__main__ import main
from orchestrator.new_space.sizes import MOST_HOURS, choose_size
from orchestrator.planning.plan import make_plan
from orchestrator.planning.preview import plan_text
from orchestrator.run_options import RunOptions
from search_spaces.loading import load as load_space
from trainables.backbone import models
from trainables.methods import METHODS
from trainables.tasks.task_loading import load

WORDS = ["late", "refund", "password", "café", "invoice", "charge", "thanks", "broken"]


def text(i: int) -> str:
    return " ".join(WORDS[(i * k + i // 8) % 8] for k in range(1, 7)) + f" {i}"


def table(columns: dict, rows: int = 90, **dialect) -> str:
    """A CSV file with these columns: a function of the row's number, or a list that is repeated."""
    out = io.StringIO()
    lines = csv.writer(out, **dialect)
    lines.writerow(columns)
    for i in range(rows):
        lines.writerow([each(i) if callable(each) else each[i % len(each)] for each in columns.values()])
    return out.getvalue()


def without_header(content: str) -> str:
    return content.split("\r\n", 1)[1]


QUEUES = ["billing", "shipping", "other"]
PLAIN = {"text": text, "label": QUEUES}
# Name of the file: (content, encoding, what the FileTask must have, number of rows that are read).
FILES = {
    "three_classes.csv": (table(PLAIN), "utf-8", {"text": "text", "label": "label", "metric": ""}, 90),
    "cp1252.csv": (table(PLAIN), "cp1252", {"encoding": "cp1252"}, 90),
    "utf16.csv": (table(PLAIN), "utf-16", {"encoding": "utf-16"}, 90),
    "bom.csv": (table(PLAIN), "utf-8-sig", {"encoding": "utf-8", "text": "text"}, 90),
    "semicolon.csv": (table(PLAIN, delimiter=";"), "utf-8", {"separator": ";"}, 90),
    "no_header.csv": (without_header(table(PLAIN)), "utf-8", {"header": ("column1", "column2"), "text": "column1"}, 90),
    "sms.tsv": (
        without_header(table({"label": ["ham"] * 8 + ["spam"], "text": text}, delimiter="\t")),
        "utf-8",
        {"header": ("column1", "column2"), "label": "column1", "separator": "", "metric": "macro_f1"},
        90,
    ),
    "glue.tsv": (
        "text\tlabel\n" + "".join(f'he said "{i}\t{i % 2}\n' for i in range(40)),
        "utf-8",
        {"separator": ""},
        40,
    ),
    "quoted_newlines.csv": (
        table({"text": lambda i: text(i) + '\n"so"', "label": QUEUES}),
        "utf-8",
        {"separator": ""},
        90,
    ),
    "quoted_newlines.tsv": (
        table({"text": lambda i: text(i) + '\n"so"', "label": QUEUES}, delimiter="\t"),
        "utf-8",
        {"separator": "\t"},
        90,
    ),
    "numbers.csv": (
        table({"comment": text, "usefulness": lambda i: i / 7}),
        "utf-8",
        {"regression": True, "text": "comment", "label": "usefulness"},
        90,
    ),
    "prices.csv": (table({"description": text, "price": lambda i: 990 * i}), "utf-8", {"regression": True}, 90),
    "stars.csv": (
        table({"stars": [1, 2, 3, 4, 5], "review": text}),
        "utf-8",
        {"regression": False, "label": "stars"},
        90,
    ),
    "ids.csv": (
        table(
            {
                "": lambda i: i,
                "customer_id": lambda i: i % 20,
                "message": text,
                "queue": QUEUES,
                "created": ["2024-01-01"],
            }
        ),
        "utf-8",
        {"text": "message", "label": "queue", "group": None},
        90,
    ),
    "copies.csv": (
        table({"text": lambda i: text(i % 60), "label": lambda i: "ab"[i % 60 % 2]}),
        "utf-8",
        {"group": "text"},
        90,
    ),
    "holes.csv": (
        table({"text": lambda i: text(i) if i % 9 else "", "label": lambda i: QUEUES[i % 3] if i % 11 else ""}),
        "utf-8",
        {"missing": "drop"},
        72,
    ),
    "urgent.csv": (
        table({"text": text, "is_urgent": ["no"] * 8 + ["yes"]}),
        "utf-8",
        {"label": "is_urgent", "metric": "f1", "positive": "yes"},
        90,
    ),
    "pairs.csv": (
        table({"premise": text, "hypothesis": lambda i: text(i + 1), "gold_label": QUEUES}),
        "utf-8",
        {"text": "premise", "text_pair": "hypothesis", "label": "gold_label"},
        90,
    ),
    "records.jsonl": (
        "".join(json.dumps({"id": i, "body": text(i), "spam": i % 3 == 0}) + "\n" for i in range(90)),
        "utf-8",
        {"text": "body", "label": "spam", "metric": "f1", "positive": "True"},
        90,
    ),
    "two_texts.csv": (
        table({"title": lambda i: text(i)[:12], "body": lambda i: text(i) * 3, "topic": QUEUES}),
        "utf-8",
        {"text": "body", "text_pair": None, "label": "topic"},
        90,
    ),
}


@pytest.fixture
def written(tmp_path, monkeypatch):
    """A function that writes a file, calls `init` for it, and returns the space that this writes."""
    monkeypatch.chdir(tmp_path)

    def init(name: str, content: str, encoding: str, *options: str):
        (tmp_path / name).write_bytes(content.encode(encoding))
        assert main(["init", name, "--to", "written.py", *options]) == 0
        return load_space("written.py", METHODS)

    return init


@pytest.mark.parametrize("name", FILES)
def test_the_space_of_a_file_reads_its_texts_and_labels(name, written, tmp_path):
    content, encoding, wanted, rows = FILES[name]
    (task,) = (space := written(name, content, encoding)).tasks
    assert {key: getattr(task, key) for key in wanted} == wanted
    found = load(task, data_dir=None, folder=tmp_path, train_examples=0, test_examples=0)
    assert len(found.train) + len(found.validation) + len(found.test) == rows
    options = RunOptions(out=tmp_path / "runs")
    plan = make_plan(space, options)
    assert plan.trials == 35
    outputs = f"{found.task.outputs} output{'s' * (found.task.outputs > 1)}"
    assert f"trained parameters (with a head of {outputs})" in plan_text(plan, options)


def test_a_file_is_never_written_over_and_a_bad_one_leaves_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data.csv").write_text(table(PLAIN))
    (tmp_path / "data.py").write_text("mine")
    assert main(["init", "data.csv"]) == 2
    assert "data.py exists and is not overwritten" in capsys.readouterr().err
    assert (tmp_path / "data.py").read_text() == "mine"
    for name, content, phrase in (
        ("empty.csv", b"", "is empty"),
        ("one.csv", b"text\n" + b"a\n" * 40, "a single column"),
        ("no_label.csv", table({"a": text, "b": lambda i: text(i + 3)}).encode(), "no column looks like a label"),
        ("ragged.csv", b"a,b\n" + b"x,1\n" * 5 + b"x,1,2\n" * 2, "most have 2, and record 7 (the header counts) has 3"),
        (
            "comma.csv",
            ("text;preis\n" + "".join(f"house number {i};{i},5\n" for i in range(40))).encode(),
            "'preis' has numbers with a comma, such as '0,5'",
        ),
        ("binary.csv", bytes(range(256)) * 9, "is no text"),
        ("sheet.xlsx", b"PK", "save it as CSV UTF-8"),
        ("few.csv", table(PLAIN, rows=12).encode(), "at least 30 are needed"),
        ("half.jsonl", b'{"text": 1\n', "is not JSON"),
    ):
        (tmp_path / name).write_bytes(content)
        assert main(["init", name]) == 2
        assert phrase in capsys.readouterr().err
        assert not (tmp_path / name).with_suffix(".py").exists()
    assert main(["init", "gone.csv"]) == 2
    assert main(["init", "data.csv", "--label", "colour", "--to", "x.py"]) == 2
    assert "--label 'colour': data.csv has the columns 'text', 'label'" in capsys.readouterr().err
    assert main(["init", "data.csv", "--to", "/proc/x.py"]) == 4
    assert (
        "/proc/x.py cannot be written (No such file or directory); give another place with" in capsys.readouterr().err
    )
    assert not (tmp_path / "x.py").exists()


def test_accents_in_a_files_name_do_not_make_holes_in_the_names_of_space_and_task(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "Anfragen März.csv").write_text(table(PLAIN), encoding="utf-8")
    assert main(["init", "Anfragen März.csv"]) == 0
    space = load_space("Anfragen_Marz.py", METHODS)
    assert (space.title, space.tasks[0].name) == ("Anfragen März", "anfragen_marz")


def test_a_test_file_beside_the_file_is_taken_if_it_has_labels(written, tmp_path):
    (tmp_path / "data_test.csv").write_text(table({"text": text}, rows=30))
    (tmp_path / "data_dev.csv").write_text(table(PLAIN, rows=30))
    assert written("data_train.csv", table(PLAIN), "utf-8").tasks[0].test == "data_dev.csv"


def test_columns_that_the_user_names_are_taken(written):
    (task,) = written(
        "a.csv", table({**PLAIN, "title": text, "mood": ["x", "y"]}), "utf-8", "--text", "title", "--label", "mood"
    ).tasks
    assert (task.text, task.label, task.text_pair) == ("title", "mood", None)


def test_names_and_labels_of_a_file_cannot_become_code(written):
    hostile = 'x"""\n"); import os; os.abort()  # \\'
    columns = {f"text{hostile[:1]}": text, "label": [hostile, "other"]}
    assert len(written('odd """ name\'.csv', table(columns), "utf-8").tasks) == 1


def test_a_sweep_gets_as_much_data_as_it_can_train_on_in_an_hour():
    shape = models.shape_of(models.KNOWN_CONFIGS["bert-base-uncased"])
    on_cpu, on_gpu = (choose_size(100_000, 10_000, 30.0, shape, gpus, 8) for gpus in (0, 1))
    assert on_cpu.hours <= MOST_HOURS or on_cpu.train_examples == 400
    assert on_gpu.hours <= MOST_HOURS
    assert on_cpu.train_examples < on_gpu.train_examples or not on_gpu.train_examples
    small = choose_size(60, 6, 30.0, shape, 0, 8)
    assert (small.train_examples, small.epochs, small.batch_size) == (0, 20, 8)
