"""GLUE: the official TSV layout with its traps, the real files where they are, and the Hub's library without network."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from trainables.tasks import glue
from trainables.tasks.task_data import MissingData
from trainables.tasks.task_loading import check_files, load

ROOT = Path(__file__).parents[3]
REAL = Path(os.environ.get("PEFT_GLUE_DIR", ROOT / "../shared/data/glue"))
needs_glue = pytest.mark.skipif(not REAL.is_dir(), reason="needs GLUE's TSV files: set PEFT_GLUE_DIR to their folder")

STSB_HEADER = "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2\tscore\n"


def write_glue(folder: Path, name: str, train: str, dev: str | None = None) -> Path:
    (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / name / "train.tsv").write_bytes(train.encode())
    (folder / name / "dev.tsv").write_bytes((train if dev is None else dev).encode())
    return folder


def read(folder: Path, task: str):
    return glue.read(glue.row(task), folder)[0]


def test_quote_marks_na_and_line_separators_inside_sentences_stay_text(tmp_path):
    text = 'gj04\t1\t\t"Who left?\ngj04\t0\t*\tNA\nks08\t1\t\tone\u2028line and "another"\n'
    found = read(write_glue(tmp_path, "CoLA", text), "cola")
    assert found.first == ['"Who left?', "NA", 'one\u2028line and "another"']
    assert found.labels == [1.0, 0.0, 1.0]
    assert found.second is None


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_a_byte_order_mark_and_windows_line_ends_are_tolerated(tmp_path, mark, end):
    lines = ["Quality\t#1 ID\t#2 ID\t#1 String\t#2 String", "1\t7\t8\ta dog .\tthe dog .", "0\t9\t9\ta cat .\tnull"]
    found = read(write_glue(tmp_path, "MRPC", mark + end.join(lines) + end), "mrpc")
    assert (found.first, found.second) == (["a dog .", "a cat ."], ["the dog .", "null"])
    assert found.labels == [1.0, 0.0]


def test_rte_words_get_the_hub_s_class_numbers(tmp_path):
    text = "index\tsentence1\tsentence2\tlabel\n0\ta\tb\tnot_entailment\n1\tc\td\tentailment\n"
    assert read(write_glue(tmp_path, "RTE", text), "rte").labels == [1.0, 0.0]


def test_stsb_scores_are_numbers_between_0_and_5(tmp_path):
    row = "0\tg\tf\t2012\t1\tnone\tnone\ta\tb\t"
    assert read(write_glue(tmp_path, "STS-B", STSB_HEADER + row + "3.800\n"), "stsb").labels == [3.8]
    for bad in ("5.1", "-1", "nan", "", "high"):
        write_glue(tmp_path, "STS-B", STSB_HEADER + row + bad + "\n")
        with pytest.raises(ValueError, match=r"train\.tsv:2: score .* between 0 and 5"):
            read(tmp_path, "stsb")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("gj04\t1\t\tfine\ngj04\t1\tfine\n", r"train\.tsv:2: 3 tab-separated fields instead of 4"),
        ("gj04\t1\t\tfine\ngj04\t2\t\tfine\n", r"train\.tsv:2: label '2', should be 0 or 1"),
        ("gj04\t-1\t\tfine\n", r"train\.tsv:1: label '-1'"),
        ("", r"train\.tsv:1: 1 tab-separated fields"),
    ],
)
def test_a_damaged_line_is_named(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        read(write_glue(tmp_path, "CoLA", text), "cola")


def test_a_header_without_the_official_columns_is_refused_before_anything_starts(tmp_path):
    write_glue(tmp_path, "RTE", "id\tpremise\thypothesis\tlabel\n0\ta\tb\tentailment\n")
    with pytest.raises(ValueError, match=r"train\.tsv:1: no column is named 'sentence1'.*premise"):
        check_files("rte", tmp_path, tmp_path)


def test_an_absent_file_is_an_environment_problem_that_names_the_file(tmp_path):
    write_glue(tmp_path, "RTE", "index\tsentence1\tsentence2\tlabel\n0\ta\tb\tentailment\n")
    (tmp_path / "RTE" / "dev.tsv").unlink()
    with pytest.raises(MissingData, match=r"RTE/dev\.tsv is missing; --data-dir"):
        check_files("rte", tmp_path, tmp_path)
    with pytest.raises(MissingData, match=r"CoLA/train\.tsv is missing"):
        load("cola", data_dir=tmp_path, folder=tmp_path, train_examples=0, test_examples=0)


# Examples of the train and the dev file: the numbers on the Hub's card, for QQP without the broken lines. Then the number of each
# class in both, where the sources of these tests give it.
PUBLISHED = {
    "cola": (8551, 1043, (2528, 6023), (322, 721)),
    "mrpc": (3668, 408, (1194, 2474), (129, 279)),
    "stsb": (5749, 1500, None, None),
    "rte": (2490, 277, (1249, 1241), (146, 131)),
    "sst2": (67_349, 872, None, None),
    "qqp": (363_846, 40_430, None, None),
    "mnli": (392_702, 9815, None, None),
    "mnli_mm": (392_702, 9832, None, None),
    "qnli": (104_743, 5463, None, None),
    "wnli": (635, 71, None, None),
    "boolq": (9427, 3270, None, None),
    "cb": (250, 56, None, None),
    "wic": (5428, 638, None, None),
}


@needs_glue
@pytest.mark.parametrize("task", PUBLISHED)
def test_the_real_tasks_have_the_published_sizes_and_shares_of_classes(task):
    """In the files, and in the splits that are made of them: a tenth of train for validation, dev for test."""
    train, dev, train_classes, dev_classes = PUBLISHED[task]
    try:
        check_files(task, REAL, ROOT)
    except MissingData:
        pytest.skip(f"{task} is not in {REAL}")
    found = load(task, data_dir=REAL, folder=ROOT, train_examples=0, test_examples=0)
    parts = (found.train, found.validation, found.test)
    assert [len(part) for part in parts] == [train - round(train / 10), round(train / 10), dev]
    assert sorted(found.split_indices.train + found.split_indices.validation) == list(range(train))
    if train_classes and dev_classes:
        counts = [[part.labels.count(float(c)) for c in range(len(train_classes))] for part in parts]
        assert [sum(pair) for pair in zip(*counts[:2], strict=True)] == list(train_classes)
        assert counts[2] == list(dev_classes)
        shares = [count / len(found.validation) for count in counts[1]]
        assert shares == pytest.approx([count / train for count in train_classes], abs=0.002)
        commonest = dev_classes[max(range(len(train_classes)), key=train_classes.__getitem__)]
        assert found.majority == pytest.approx(0.0 if task == "cola" else 100 * commonest / dev)


@needs_glue
def test_the_real_sts_b_validation_scores_are_spread_as_the_train_scores_are():
    found = load("stsb", data_dir=REAL, folder=ROOT, train_examples=0, test_examples=0)
    train, dev = glue.read(glue.row("stsb"), REAL)
    assert sum(train.labels) / len(train) == pytest.approx(2.701, abs=5e-4)
    assert sum(dev.labels) / len(dev) == pytest.approx(2.364, abs=5e-4)
    assert sum(found.validation.labels) / len(found.validation) == pytest.approx(2.701, abs=0.03)


# A stand-in for the Hub's repository: the same layout (a card with one configuration per task, Parquet files), made-up texts.
PAIRS = [(f"first {i}", f'"second" {i}, NA') for i in range(30)]


def write_repository(folder: Path, task: str, columns: tuple[str, ...], labels: list[float]) -> Path:
    import pyarrow
    import pyarrow.parquet

    (folder / task).mkdir(parents=True)
    files = []
    for part, number in (("train", 30), ("validation", 10), ("test", 4)):
        texts = zip(columns, zip(*PAIRS[:number], strict=True), strict=False)
        hidden = [-1] * number if part == "test" else labels[:number]
        table = pyarrow.table(
            {**{name: list(text) for name, text in texts}, "label": hidden, "idx": list(range(number))}
        )
        pyarrow.parquet.write_table(table, folder / task / f"{part}-00000-of-00001.parquet")
        files.append(f"  - split: {part}\n    path: {task}/{part}-*\n")
    (folder / "README.md").write_text(f"---\nconfigs:\n- config_name: {task}\n  data_files:\n{''.join(files)}---\n")
    return folder


READ = """
import sys
from trainables.tasks import glue
from trainables.tasks.task_data import MissingData
row = glue.row(sys.argv[1])
try:
    train, dev = glue.read(row, None, *sys.argv[2:])
except MissingData as error:
    print("missing:", error)
else:
    print(len(train), len(dev), train.first[2], "|", train.second and train.second[2], "|", train.labels[:3], dev.labels[:2])
"""


def read_apart(home: Path, *arguments: str, offline: str = "1") -> str:
    """In a process of its own: the library reads its settings once, when it is imported."""
    environment = {**os.environ, "HF_HOME": str(home), "HF_HUB_OFFLINE": offline, "PYTHONPATH": str(ROOT)}
    for name in ("HF_DATASETS_CACHE", "HF_HUB_CACHE", "HF_DATASETS_OFFLINE"):
        environment.pop(name, None)
    done = subprocess.run(
        # Without network the Hub's library would retry for longer than this.
        [sys.executable, "-c", READ, *arguments],
        capture_output=True,
        text=True,
        env=environment,
        timeout=15,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_repository_of_the_hub_s_layout_is_read_as_the_files_are(tmp_path):
    columns = ("sentence1", "sentence2")
    repository = write_repository(tmp_path / "glue", "mrpc", columns, [i % 2 for i in range(30)])
    assert read_apart(tmp_path / "home", "mrpc", str(repository)) == (
        '30 10 first 2 | "second" 2, NA | [0.0, 1.0, 0.0] [0.0, 1.0]'
    )


def test_a_filled_cache_serves_a_machine_without_network(tmp_path):
    """The cache is filled from a folder and given the name under which the Hub's own data would lie there."""
    home = tmp_path / "home"
    repository = write_repository(tmp_path / "glue", "cola", ("sentence",), [1] * 30)
    read_apart(home, "cola", str(repository))
    cache = home / "datasets"
    filled = next(path for path in cache.iterdir() if path.is_dir())
    # Local folders put a hash of the files into the configuration's name; the Hub's data do not.
    shutil.copytree(next(filled.glob("cola*")), cache / "nyu-mll___glue" / "cola")
    info = next((cache / "nyu-mll___glue" / "cola").glob("*/*/dataset_info.json"))
    text = info.read_text()
    assert '"config_name":' in text
    shutil.rmtree(filled)
    shutil.rmtree(repository)
    assert read_apart(home, "cola") == "30 10 first 2 | None | [1.0, 1.0, 1.0] [1.0, 1.0]"


@pytest.mark.parametrize("offline", ["1", "0"])
def test_neither_cache_nor_network_is_said_at_once_with_what_to_do(tmp_path, offline, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # no server listens there
    said = read_apart(tmp_path / "home", "rte", offline=offline)
    assert said.startswith("missing: task 'rte': nyu-mll/glue is neither reachable nor in the cache")
    assert "--data-dir" in said
