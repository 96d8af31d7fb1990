"""Every wrong input ends with its exit code and a message that says what, where and how to mend it; nothing is written."""

import json
from pathlib import Path

import pytest

from orchestrator import exit_codes
from tests.fixtures.cli_calls import QUICK, wants
from trainables.backbone.models import resolve

PARTS = {
    "models": '("bert-base-uncased",)',
    "tasks": '("agreement",)',
    "methods": '(method("adapter", r=choice(8, 16)),)',
    "search": '{"lr": choice(1e-4, 1e-3), "batch_size": 8}',
}
TABLE = "text,label\n" + "".join(f"word{i},{i % 2}\n" for i in range(60))
CONFIG = {
    "model_type": "bert",
    "vocab_size": 100,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 140,
    "type_vocab_size": 2,
}


@pytest.fixture
def write(tmp_path):
    """Writes a space file, correct but for the parts given, or the given text."""

    def write_space(text: str | None = None, name: str = "mine.py", extra: str = "", **parts: str) -> Path:
        folder = tmp_path / "spaces"
        folder.mkdir(exist_ok=True)
        listed = ", ".join(f"{key}={value}" for key, value in {**PARTS, **parts}.items())
        head = "from search_spaces.language import *\n"
        path = folder / name
        path.write_text(f"{head}space = Space({listed}, {extra})\n" if text is None else text)
        return path

    return write_space


@pytest.mark.parametrize(
    ("words", "phrases"),
    [
        ((), ("--space is missing", "--list")),
        (("--space", ""), ("--space", "empty")),
        (("--space", "quickstrt"), ("'quickstrt' is not known", "did you mean 'quickstart'", "glue_madapter")),
        (("--space", "../quickstart"), ("'../quickstart' is not known", "did you mean 'quickstart'")),
        (("--space", "a\nb"), ("--space", r"'a\nb'")),
        (("--space", "<script>"), ("'<script>' is not known",)),
        (("--space", "quickstart.py"), ("no such file", "did you mean 'quickstart'")),
        (("--space", "x" * 5000 + ".py"), ("File name too long", "xxx...xxx")),
        ((*QUICK, "--plan", "--precision", "int8"), ("--precision int8: must be 'fp32', 'bf16' or 'nf4'",)),
        (
            (*QUICK, "--plan", "--precision", "nf4"),
            ("method 'full'", "trains weights of the backbone", "leave the row out"),
        ),
        (
            (*QUICK, "--plan", "--precision", "nf4", "--set", "recipe.nf4_block_size=100"),
            ("--set recipe.nf4_block_size=100: must be one of 32, 64, 128",),
        ),
        (
            (*QUICK, "--plan", "--precision", "nf4", "--set", "recipe.nf4_double_quant=2"),
            ("recipe.nf4_double_quant=2: must be True or False",),
        ),
        (
            (*QUICK, "--plan", "--precision", "nf4", "--set", "recipe.nf4_compute=fp16"),
            ("recipe.nf4_compute=fp16: must be 'bf16' or 'fp32'",),
        ),
        (
            (*QUICK, "--plan", "--set", "recipe.nf4_block_size=128"),
            ("read only with precision 'nf4', and it is 'fp32'", "--precision nf4"),
        ),
        ((*QUICK, "--set", "budget.search=bayes"), ("must be 'tpe', 'random', 'grid' or 'multi'",)),
        ((*QUICK, "--set", "budget.brackets=0"), ("budget.brackets=0: must be between 1 and 20",)),
        (
            (*QUICK, "--plan", "--methods", "full,adapter", "--set", "budget.search=multi"),
            ("'multi'", "each row (full, adapter) all configurations train equally many", "r=choice(8, 32)", "'tpe'"),
        ),
        ((*QUICK, "--methods", "adaptor"), ("method 'adaptor' is not in this space", "did you mean 'adapter'")),
        ((*QUICK, "--tasks", "sentimnt"), ("task 'sentimnt' is not in this space", "did you mean 'sentiment'")),
        ((*QUICK, "--tasks", "mrpc"), ("task 'mrpc' is not in this space", "known: sentiment")),
        ((*QUICK, "--models", "bert-bse-uncased"), ("'bert-bse-uncased' is not known", "'bert-base-uncased'", "Hub")),
        ((*QUICK, "--models", "./nothere"), ("model './nothere'", "no such directory", "owner/name")),
        ((*QUICK, "--models", "../../etc"), ("model '../../etc'",)),
        ((*QUICK, "--models", "owner/.."), ("model 'owner/..'", "owner/name")),
        ((*QUICK, "--models", "<b>/x"), ("model '<b>/x'", "owner/name")),
        ((*QUICK, "--models", "a\nb"), (r"'a\nb'",)),
        ((*QUICK, "--models", "/" + "x" * 5000), ("File name too long",)),
        ((*QUICK, "--epochs", "0"), ("--epochs 0: must be between 1 and 10000",)),
        ((*QUICK, "--epochs", "999999"), ("--epochs 999999: must be between 1 and 10000",)),
        ((*QUICK, "--trials", "0"), ("--trials 0: must be between 1 and 10000",)),
        ((*QUICK, "--trials", "1.5"), ("--trials", "'1.5': must be a whole number")),
        ((*QUICK, "--trials", "1e3"), ("--trials", "'1e3': must be a whole number")),
        ((*QUICK, "--seeds", "-1"), ("--seeds -1: must be between 1 and 100",)),
        ((*QUICK, "--gpus", "-1"), ("--gpus", "'-1': must be a number between 0 and 4096")),
        ((*QUICK, "--gpus", "4097"), ("--gpus", "'4097': must be a number between 0 and 4096")),
        ((*QUICK, "--gpus", "8..4"), ("--gpus", "'8..4': must be a number", "the smaller one first")),
        ((*QUICK, "--gpus", "0..4"), ("--gpus", "'0..4': must be a number", "at least 1")),
        ((*QUICK, "--gpus", "4.."), ("--gpus", "'': must be a whole number")),
        ((*QUICK, "--gpus", "all"), ("--gpus", "'all': must be a whole number")),
        ((*QUICK, "--trials-per-gpu", "0"), ("--trials-per-gpu", "auto or a whole number between 1 and 64")),
        ((*QUICK, "--trials-per-gpu", "²"), ("--trials-per-gpu", "auto or a whole number between 1 and 64")),
        ((*QUICK, "--budget", "3 bananas"), ("--budget", "'3 bananas': must be a time above zero", "90m, 40h")),
        ((*QUICK, "--budget", "40"), ("--budget", "'40': must be a time above zero with its unit")),
        ((*QUICK, "--budget", "0h"), ("--budget", "'0h': must be a time above zero")),
        ((*QUICK, "--budget=-2h"), ("--budget", "'-2h': must be a time above zero")),
        ((*QUICK, "--budget", "1e9h"), ("--budget", "'1e9h': must be a time above zero")),
        ((*QUICK, "--budget", ""), ("--budget", "'': must be a time above zero")),
        ((*QUICK, "--tasks", ","), ("--tasks", "different names, separated by commas")),
        ((*QUICK, "--methods", "full,full"), ("--methods", "different names")),
        ((*QUICK, "--tirals", "3"), ("'--tirals' is no option", "did you mean '--trials'")),
        ((*QUICK, "--trial", "3"), ("'--trial' is no option", "did you mean '--trials'")),
        ((*QUICK, "--trial=3"), ("'--trial=3' is no option", "did you mean '--trials'")),
        ((*QUICK, "stray"), ("'stray' is no option",)),
        ((*QUICK, "--out", ""), ("--out", "empty")),
        ((*QUICK, "--out", "s3://bucket/runs"), ("--out: 's3://bucket/runs'", "must be a folder of this machine")),
        ((*QUICK, "--out", "s3://bucket/runs"), ("--checkpoints",)),
        ((*QUICK, "--checkpoints", "hdfs://host/x"), ("'hdfs://host/x': must be a folder or s3://... or gs://",)),
        ((*QUICK, "--checkpoints", "s3://"), ("--checkpoints", "must be a folder or s3://")),
        ((*QUICK, "--checkpoints", "s3://bucket/x?allow=1"), ("'s3://bucket/x': must be", "region=")),
        ((*QUICK, "--checkpoints", "s3://me:hunter2@bucket/x"), ("'s3://bucket/x': must not hold a user name", "AWS_")),
        ((*QUICK, "--report", "gs://bucket/x"), ("--report: 'gs://bucket/x'", "must be a folder of this machine")),
        ((*QUICK, "--out", "x" * 300), ("File name too long",)),
        ((*QUICK, "--tracking-uri", ""), ("--tracking-uri", "empty")),
        ((*QUICK, "--tracking-uri", "./mlruns"), ("--tracking-uri './mlruns'", "sqlite:///FOLDER/mlflow.db")),
        ((*QUICK, "--tracking-uri", "ftp://host/x"), ("--tracking-uri 'ftp://host/x'", "sqlite, http")),
        ((*QUICK, "--tracking-uri", "http://me:hunter2@host"), ("MLFLOW_TRACKING_PASSWORD",)),
        ((*QUICK, "--address", "nonsense"), ("--address 'nonsense'", "HOST:PORT")),
        ((*QUICK, "--address", "ray://host:99999"), ("--address", "HOST:PORT")),
        ((*QUICK, "--address", "host:99999"), ("--address 'host:99999'", "HOST:PORT")),
    ],
)
def test_a_wrong_option_is_refused_with_its_name_and_what_is_allowed(run, words, phrases):
    wants(run(*words), exit_codes.BAD_INPUT, *phrases)


@pytest.mark.parametrize(
    "words", [("--tracking-uri", "http://me:hunter2@host"), ("--checkpoints", "s3://me:hunter2@bucket/x")]
)
def test_a_password_in_an_address_is_never_shown(run, words):
    assert "hunter2" not in run(*QUICK, *words)[1]


def test_a_variable_of_mlflow_that_cannot_be_used_is_refused_by_its_name(run, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:hunter2@host")
    code, text = run(*QUICK)[:2]
    assert code == exit_codes.BAD_INPUT
    assert "environment variable MLFLOW_TRACKING_URI: 'http://" in text
    assert "give --tracking-uri" in text
    assert "hunter2" not in text


def test_escape_sequences_never_reach_the_terminal(run):
    assert "\x1b" not in run(*QUICK, "--models", "\x1b[31mred")[1]


@pytest.mark.parametrize(
    ("parts", "phrases"),
    [
        ({"tasks": '("mprc",)'}, ("task 'mprc' is not known", "did you mean 'mrpc'", "FileTask")),
        ({"models": '("roberta-bse",)'}, ("model 'roberta-bse' is not known", "did you mean 'roberta-base'")),
        ({"models": '""'}, (":2: space: models = ''", "models=(...,)")),
        ({"models": '("",)'}, (":2: space: models holds ''",)),
        ({"models": "(1,)"}, (":2: space: models holds 1",)),
        ({"tasks": '"agreement"'}, (":2: space: tasks = 'agreement'", "tasks=(...,)")),
        ({"tasks": "()"}, (":2: space: tasks is empty",)),
        ({"tasks": '("rte", "rte")'}, (":2: task 'rte' stands twice",)),
        ({"methods": '("adapter",)'}, ("write method('adapter')",)),
        ({"methods": '(method("adaptor"),)'}, ("method 'adaptor' is not known", "did you mean 'adapter'")),
        (
            {"methods": '(method("adapter", rank=8),)'},
            ("method 'adapter'", "'rank' is no setting", "known: init_scale, r"),
        ),
        (
            {"methods": '(method("sparse_adapter", sparsty=0.4),)'},
            ("'sparsty' is no setting of 'sparse_adapter'", "did you mean 'sparsity'"),
        ),
        ({"methods": '(method("sparse_adapter", score="snipp"),)'}, ("score = 'snipp'", "snip, grasp")),
        ({"methods": '(method("full", r=8),)'}, ("'r' is no setting of 'full'", "known: none")),
        ({"methods": '(method("adapter", r=0),)'}, ("method 'adapter'", "r = 0: must be", "between 1 and 768")),
        ({"methods": '(method("adapter", r=choice(8, 769)),)'}, ("r = 769: must be", "the backbone's width")),
        ({"methods": '(method("adapter", r="8"),)'}, ("r = '8': must be a whole number",)),
        ({"methods": '(method("adapter", r=uniform(8, 64)),)'}, ("r is a whole number", "r=choice(...)")),
        ({"methods": '(method("madapter", r=8, n_mid=0),)'}, ("n_mid = 0: must be", "between 1 and 8")),
        (
            {"methods": '(method("adaption_prompt", layers=choice(2, 13)),)'},
            ("layers = 13: must be", "between 1 and 12"),
        ),
        ({"methods": '(method("prompt_tuning", length=500),)'}, ("'prompt_tuning' on bert", "500 virtual tokens and")),
        ({"methods": '(method("adapter", r=choice()),)'}, (":2: choice() needs at least one value",)),
        ({"methods": '(method("adapter", r=choice(8, 8)),)'}, (":2: choice(8, 8) names a value twice",)),
        ({"methods": '(method("adapter", r=choice([8, 16])),)'}, (":2: choice() takes", "choice(8, 16)", "[8, 16]")),
        (
            {"methods": '(method("adapter", r=8), method("adapter", r=16))'},
            (":2: method label 'adapter' stands twice",),
        ),
        ({"methods": '(method("adapter", label="../x"),)'}, (":2: method label name '../x'", "letters, digits")),
        ({"methods": r'(method("adapter", label="a\nb"),)'}, (r"method label name 'a\nb'",)),
        ({"methods": '(method("adapter", label="<b>"),)'}, ("method label name '<b>'",)),
        ({"methods": '(method("adapter", label="x" * 5000),)'}, ("xxx...xxx", "up to 80 letters")),
        ({"search": '{"batch_size": 8}'}, ("method 'adapter': lr is neither in `search` nor",)),
        ({"search": '{"lr": choice(-1e-3), "batch_size": 8}'}, (":2: method 'adapter': lr = -0.001: must be",)),
        ({"search": '{"lr": "1e-3", "batch_size": 8}'}, (":2: method 'adapter': lr = '1e-3': must be a number",)),
        ({"search": '{"lr": float("nan"), "batch_size": 8}'}, ("lr = nan: must be a number",)),
        ({"search": '{"lr": log_uniform(1e-2, 1e-4), "batch_size": 8}'}, (":2: a range needs", "0.01 and 0.0001")),
        ({"search": '{"lr": log_uniform(0, 1e-4), "batch_size": 8}'}, (":2: log_uniform needs low > 0",)),
        ({"search": '{"lr": uniform("1e-5", "1e-4"), "batch_size": 8}'}, (":2: a range needs", "'1e-5'")),
        ({"search": '{"lr": 1e-3, "batch_size": True}'}, ("batch_size = True: must be whole numbers",)),
        ({"search": '{"lr": 1e-3, "batch_size": 8, "foo": choice(1, 2)}'}, ("'foo' is no setting of 'adapter'",)),
        ({"search": "None"}, (":2: space: search = None: must be a dict",)),
        ({"extra": "budget=Budget(trial=3)"}, (":2: Budget has no 'trial'", "did you mean 'trials'")),
        ({"extra": "recipe=Recipe(epoch=1)"}, (":2: Recipe has no 'epoch'", "did you mean 'epochs'")),
        ({"extra": "modles=1"}, (":2: Space has no 'modles'", "did you mean 'models'")),
        ({"extra": "recipe=Recipe(epochs=0)"}, (":2: recipe: epochs = 0: must be between 1 and",)),
        ({"extra": 'recipe=Recipe(epochs="4")'}, (":2: recipe: epochs = '4': must be a whole number",)),
        ({"extra": 'recipe=Recipe(clip=float("inf"))'}, (":2: recipe: clip = inf: must be a finite number",)),
        ({"extra": 'recipe={"epochs": 4}'}, (":2: space: recipe = {'epochs': 4}", "recipe=Recipe(...)")),
        ({"extra": "budget=Budget(trials=0)"}, (":2: budget: trials = 0: must be between 1 and 10000",)),
        ({"extra": "budget=Budget(grace=0)"}, (":2: budget: grace = 0: must be at least 1 epoch",)),
        ({"extra": "budget=Budget(reduction=1)"}, (":2: budget: reduction = 1: must be at least 2",)),
        ({"extra": "budget=None"}, (":2: space: budget = None", "budget=Budget(...)")),
        ({"extra": "seed=1.5"}, (":2: space: seed = 1.5: must be a whole number",)),
        ({"extra": "seed=2**64"}, (":2: space: seed = 18446744073709551616: must lie in",)),
        ({"extra": r'title="a\x1b[31m"'}, (r":2: space: title = 'a\x1b[31m': must be a text",)),
        ({"name": "my space.py"}, ("space name 'my space'", "letters, digits")),
        ({"name": "a..b.py"}, ("space name 'a..b'",)),
    ],
)
def test_a_wrong_space_is_refused_where_it_is_wrong(run, write, parts, phrases):
    wants(run("--space", write(**parts)), exit_codes.BAD_INPUT, *phrases)


def test_a_plan_refuses_virtual_tokens_that_leave_no_room_for_the_text(run, write):
    def space(length):
        return write(
            methods=f'(method("prompt_tuning", length=choice(20, {length})),)', extra="recipe=Recipe(max_length=412)"
        )

    reason = "101 virtual tokens and max_length = 412: together at most 512, the positions of the model"
    wants(run("--space", space(101), "--plan"), exit_codes.BAD_INPUT, reason)
    assert run("--space", space(100), "--plan") == (exit_codes.COMPLETE, "")


@pytest.mark.parametrize(
    ("text", "phrases"),
    [
        ("space = (\n1 +\n", (":1: does not parse",)),
        ("space = 1\0\n", (":1: does not parse", "null bytes")),
        ("x = 1\nraise RuntimeError('boom')\n", (":2: RuntimeError: boom",)),
        ("import sys\n\nsys.exit(0)\n", (":3: SystemExit: 0",)),
        ("import nothere\n", (":1: ModuleNotFoundError: No module named 'nothere'",)),
        ("def f(): f()\nf()\n", ("RecursionError",)),
        ("", ("must assign a Space to the name `space`, not NoneType",)),
        ("space = {'models': 1}\n", ("must assign a Space to the name `space`, not dict",)),
    ],
)
def test_a_space_file_that_is_none_is_refused_with_its_line(run, write, text, phrases):
    path = write(text)
    wants(run("--space", path), exit_codes.BAD_INPUT, str(path), *phrases)


def test_the_space_that_the_wrong_ones_vary_is_right(run, write, driver):
    driver.drive = lambda plan, settings: exit_codes.COMPLETE
    assert run("--space", write())[0] == exit_codes.COMPLETE


@pytest.mark.parametrize(
    ("table", "fields", "phrases"),
    [
        (None, "", ("task 'mine'", "there is no file", "data.csv", "space's folder")),
        ("", "", ("data.csv: the file has no header",)),
        ("text,label\n", "", ("data.csv: has no examples",)),
        ("text,label\n" + "word,1\n" * 40, "", ("data.csv: column 'label': every label is '1'", "two classes")),
        (TABLE, 'label="lable"', ("column 'lable' is not in the header: 'text', 'label'",)),
        (TABLE, 'metric="acuracy"', ("metric 'acuracy' is not known", "did you mean 'accuracy'")),
        (TABLE, 'metric="pearson"', ("metric 'pearson' does not fit a classification", "allowed: accuracy")),
        (TABLE, "trian=1", ("FileTask has no 'trian'", "did you mean 'train'")),
        (TABLE, "regression=1", ("task 'mine': regression = 1: must be True or False",)),
        (TABLE, "train=3", ("task 'mine': train = 3: must be a text",)),
        (TABLE, 'name="../x"', ("task name '../x' is not usable",)),
        (TABLE, 'name="rte"', ("task 'rte' is a built-in task's name",)),
        (TABLE + ",1\n", "", ("row 61, column 'text': is empty",)),
    ],
)
def test_a_wrong_table_of_the_user_is_refused_with_file_column_and_row(run, write, table, fields, phrases):
    values = {"name": '"mine"', "train": '"data.csv"', "text": '"text"', "label": '"label"'}
    values |= dict([fields.split("=", 1)]) if fields else {}
    path = write(tasks=f"(FileTask({', '.join(f'{key}={value}' for key, value in values.items())}),)")
    if table is not None:
        (path.parent / "data.csv").write_text(table)
    wants(run("--space", path), exit_codes.BAD_INPUT, *phrases)


MRPC_HEADER = "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\n"


@pytest.mark.parametrize(
    ("text", "code", "phrases"),
    [
        (None, exit_codes.ENVIRONMENT, ("task 'mrpc'", "MRPC/train.tsv is missing", "--data-dir must hold")),
        ("a\tb\n1\t2\n", exit_codes.BAD_INPUT, ("MRPC/train.tsv:1: no column is named '#1 String'",)),
        (MRPC_HEADER, exit_codes.BAD_INPUT, ("MRPC/train.tsv: has no examples",)),
        (MRPC_HEADER + "1\t2\n", exit_codes.BAD_INPUT, ("MRPC/train.tsv:2: 2 tab-separated fields instead of 5",)),
        (MRPC_HEADER + "7\t1\t2\ta\tb\n", exit_codes.BAD_INPUT, ("MRPC/train.tsv:2: label '7'",)),
    ],
)
def test_glue_files_that_are_missing_or_not_the_official_ones_are_named(run, tmp_path, text, code, phrases):
    if text is not None:
        (tmp_path / "glue" / "MRPC").mkdir(parents=True)
        for part in ("train", "dev"):
            (tmp_path / "glue" / "MRPC" / f"{part}.tsv").write_text(text)
    wants(run("--space", "glue_madapter", "--tasks", "mrpc", "--data-dir", tmp_path / "glue"), code, *phrases)


@pytest.mark.parametrize(
    ("files", "phrases"),
    [
        (None, ("model ", "no such directory")),
        ({}, ("has no config.json", "folder of a saved model")),
        ({"config.json": "{"}, ("config.json: Expecting",)),
        ({"config.json": "[1]"}, ("config.json: it holds no JSON object",)),
        ({"config.json": {**CONFIG, "model_type": "t5"}}, ("family 't5' is not supported", "bert, roberta")),
        ({"config.json": {**CONFIG, "hidden_size": None}}, ("config.json: hidden_size = None: must be",)),
        ({"config.json": {**CONFIG, "num_attention_heads": 5}}, ("hidden_size = 32 is no multiple of",)),
        ({"config.json": {**CONFIG, "is_decoder": True}}, ("only encoders",)),
        ({"config.json": CONFIG, "pytorch_model.bin": "x"}, ("has no model.safetensors", "save_pretrained")),
        ({"config.json": CONFIG, "model.safetensors": "nope"}, ("cut off or no safetensors file",)),
    ],
)
def test_a_folder_that_is_no_model_of_ours_is_refused(run, driver, tmp_path, files, phrases):
    folder = tmp_path / "model"
    if files is not None:
        folder.mkdir()
        for name, content in files.items():
            (folder / name).write_text(content if isinstance(content, str) else json.dumps(content))
    driver.drive = lambda plan, settings: [resolve(name) for name in plan.space.models]
    wants(run(*QUICK, "--models", folder), exit_codes.BAD_INPUT, str(folder), *phrases)
