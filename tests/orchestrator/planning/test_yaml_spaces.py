"""A space in a YAML file is the space that a Python file with the same fields describes, or an error with file and line."""

import textwrap
from pathlib import Path

import pytest

from orchestrator import exit_codes
from orchestrator.planning.plan import make_plan
from orchestrator.planning.space_files import load_space
from orchestrator.run_options import RunOptions
from search_spaces.language import FileTask, Range, ablated, choice, log_uniform, method, own_search
from search_spaces.loading import load
from tests.fixtures.cli_calls import wants

EXAMPLES = Path(__file__).parents[3] / "docs" / "examples"
PARTS = {
    "models": "[minilm]",
    "tasks": "[agreement]",
    "methods": "[full]",
    "search": "{lr: 1e-3, batch_size: 8}",
}


@pytest.fixture
def write(tmp_path):
    """Writes a YAML file, correct but for the parts given, or the given text; returns its path."""

    def write_space(text: str = "", **parts: str) -> Path:
        path = tmp_path / "mine.yaml"
        lines = [f"{name}: {value}" for name, value in {**PARTS, **parts}.items() if value]
        path.write_text(text or "\n".join(lines), encoding="utf-8")
        return path

    return write_space


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.yaml")), ids=lambda path: path.stem)
def test_an_example_makes_the_plan_of_the_python_space_of_its_name(path):
    yaml, python = load_space(str(path)), load(path.stem)
    assert yaml == python
    assert make_plan(yaml, RunOptions()) == make_plan(python, RunOptions())


def test_there_is_an_example():
    assert list(EXAMPLES.glob("*.yaml"))


def test_the_space_on_the_page_about_the_command_line_is_read(write):
    page = (EXAMPLES.parent / "command_line.md").read_text(encoding="utf-8")
    block = page[page.index("    models:") : page.index("Values are read")]
    space = load_space(str(write(textwrap.dedent(block))))
    assert space.methods == (method("full"), own_search("lora"), method("adapter", r=choice(8, 16)))
    assert space.tasks == (FileTask(name="tickets", train="train.csv", text="message", label="queue"),)


def test_every_kind_of_field_and_value_is_read(write, tmp_path):
    path = write(
        """
title: "a: b"
seed: 7
models: [minilm, "./a dir"]
tasks:
  - agreement
  - {name: mine, train: a.csv, text: message, label: 'y', test: null, positive: no, header: [y, message], regression: false}
methods:
  - full
  - name: lora
    own_search: true
    r: {choice: [4, 8]}
  - {name: adapter, label: "16", r: 16, lr: "choice(1e-3, 3e-3)", ablated: true}
  - name: sparse_adapter
    score: choice(snip, magnitude)
search: {lr: {log_uniform: [1e-4, 1.0e-2]}, batch_size: 8}
recipe:
  clip: 1
  precision: bf16
  train_examples: {agreement: 400}
budget: {trials: 3}
"""
    )
    space = load_space(str(path))
    task = FileTask(name="mine", train="a.csv", text="message", label="y", positive="no", header=("y", "message"))
    assert (space.name, space.folder, space.title, space.seed) == ("mine", tmp_path, "a: b", 7)
    assert (space.models, space.tasks) == (("minilm", "./a dir"), ("agreement", task))
    assert space.methods == (
        method("full"),
        own_search("lora", r=choice(4, 8)),
        ablated(method("adapter", label="16", r=16, lr=choice(1e-3, 3e-3))),
        method("sparse_adapter", score=choice("snip", "magnitude")),
    )
    assert space.search == {"lr": log_uniform(1e-4, 1e-2), "batch_size": 8}
    assert isinstance(space.search["lr"], Range)
    assert space.recipe.train_examples == {"agreement": 400}
    assert (space.recipe.clip, space.recipe.precision, space.recipe.epochs, space.budget.trials) == (1, "bf16", 20, 3)


@pytest.mark.parametrize(
    ("parts", "phrases"),
    [
        ({"models": "minilm"}, (":1: must be a list",)),
        ({"models": ""}, (":1: Space lacks models",)),
        ({"modles": "[minilm]"}, (":5: Space has no 'modles'", "did you mean 'models'")),
        ({"name": "x"}, (":5: name cannot be set",)),
        ({"recipe": "{epochs: yes}"}, (":5: recipe: epochs = 'yes': must be a whole number",)),
        ({"recipe": "{epoch: 5}"}, (":5: Recipe has no 'epoch'", "did you mean 'epochs'")),
        ({"recipe": '{epochs: "5"}'}, (":5: recipe: epochs = '5': must be a whole number",)),
        ({"recipe": "{epochs: 5, epochs: 6}"}, (":5: 'epochs' is given twice",)),
        ({"recipe": "5"}, (":5: must be names with values",)),
        ({"search": "{lr: choice(1e-3, 2e-3), batch_size: 8}"}, (":4: 'choice(1e-3' cannot be read",)),
        ({"search": "{lr: [1e-3, 2e-3], batch_size: 8}"}, (":4: ", "{choice: [8, 16]}")),
        ({"search": "{lr: {uniform: [1]}, batch_size: 8}"}, (":4: uniform needs the lowest and the highest",)),
        ({"search": "{lr: {chioce: [1]}, batch_size: 8}"}, (":4: 'chioce' is no search", "did you mean 'choice'")),
        ({"search": "{lr: 20, batch_size: 8}"}, (":1: method 'full': lr = 20: must be a number in (0, 10)",)),
        ({"methods": "[{r: 8}]"}, (":3: a method needs its name",)),
        ({"methods": "[{name: adapter, own_search: 3}]"}, (":3: own_search = 3: must be true or false",)),
        ({"methods": "[adaptor]"}, ("method 'adaptor' is not known", "did you mean 'adapter'")),
        ({"tasks": "[{name: t}]"}, (":2: FileTask lacks train, text, label",)),
        ({"tasks": "[{name: t, train: a.csv, text: [x], label: y}]"}, (":2: task 't': text = ('x',)",)),
        ({"text": "[" * 3000}, (":1: does not parse",)),
        ({"text": "models: [a"}, (":1: does not parse",)),
        ({"text": "models: &a [*a]"}, (":1: must be a single value",)),
        ({"text": "models: !!python/object/apply:os.system [x]"}, (":1: must be a list",)),
        ({"text": "title: !!python/name:os.system x"}, (":1: must be a single value without a tag",)),
        ({"text": "# nothing"}, (":1: is empty",)),
        ({"text": "\0"}, (":1: does not parse",)),
    ],
)
def test_a_wrong_yaml_space_is_refused_where_it_is_wrong(run, write, parts, phrases):
    path = write(**parts)
    wants(run("--space", path, "--plan"), exit_codes.BAD_INPUT, *phrases)


def test_a_yaml_file_that_is_not_there_is_named(run):
    wants(run("--space", "tickets.yaml"), exit_codes.BAD_INPUT, "'tickets.yaml': there is no such file")
