"""--set, --train-examples and --methods change a space by the names of its fields, are checked, and are named."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator import exit_codes
from orchestrator.planning.space_options import apply
from orchestrator.planning.sweep_manifest import folder_name
from orchestrator.run_options import RunOptions
from search_spaces.language import FileTask, Space, choice, log_uniform, method, own_search, uniform
from search_spaces.values import parse_value, text_of
from tests.fixtures.cli_calls import QUICK, wants
from tests.fixtures.spaces import make_space
from trainables.methods import METHODS

TASK = FileTask(name="my.task", train="a.csv", text="text", label="label")


def changed(*settings: str, space: Space | None = None, **options) -> tuple[Space, list[str]]:
    return apply(space or make_space(), RunOptions(settings=settings, **options))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("16", 16),
        ("-1.5", -1.5),
        ("1e-3", 0.001),
        ("true", True),
        ("False", False),
        ("snip", "snip"),
        ("'16'", "16"),
        ("./a b", "./a b"),
        ("choice(8, 16)", choice(8, 16)),
        ("choice(snip, 'gr(asp')", choice("snip", "gr(asp")),
        ("uniform(0, 1)", uniform(0, 1)),
        ("log_uniform(1e-4,1e-2)", log_uniform(1e-4, 1e-2)),
    ],
)
def test_a_text_stands_for_a_value(text, value):
    found = parse_value(text)
    assert (type(found), found) == (type(value), value)


SCALARS = st.one_of(st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.booleans(), st.text())


@given(st.lists(SCALARS, min_size=1, unique=True).map(lambda values: choice(*values)))
def test_the_text_of_a_searched_value_is_read_back(value):
    assert parse_value(text_of(value)) == value


@pytest.mark.parametrize(
    "text", ["__import__('os')", "choise(1)", "choice(1", "choice([1])", "uniform(1)", "choice(*x)"]
)
def test_a_malformed_search_is_refused(text):
    with pytest.raises(ValueError, match=r"choice|uniform"):
        parse_value(text)


def test_a_setting_is_the_field_of_a_space_written_so():
    space, told = changed(
        "recipe.patience=3", "budget.trials=4", "methods.adapter.r=choice(4, 8)", "seed=5", "title=mine"
    )
    own = make_space()
    assert (space.recipe.patience, space.budget.trials, space.seed, space.title) == (3, 4, 5, "mine")
    assert space.entry("adapter").settings["r"] == choice(4, 8)
    assert told == [
        f"--set recipe.patience=3 instead of {own.recipe.patience}",
        "--set budget.trials=4 instead of 6",
        f"--set methods.adapter.r=choice(4, 8) instead of {text_of(own.values_of(own.entry('adapter'))['r'])}",
        "--set seed=5 instead of 0",
        "--set title=mine instead of none",
    ]


def test_a_sweep_is_that_of_the_space_that_results():
    by_set, by_flag = changed("recipe.epochs=2")[0], changed(epochs=2)[0]
    assert folder_name(by_set) == folder_name(by_flag) != folder_name(make_space())
    assert folder_name(changed("methods.adapter.r=4")[0]) != folder_name(make_space())
    assert changed("recipe.epochs=8", f"seed={make_space().seed}") == (make_space(), [])


def test_epochs_that_are_set_are_no_longer_searched_unless_that_is_set_too():
    space = make_space(search={"lr": 1e-4, "batch_size": 8, "epochs": choice(3, 8)})
    assert "epochs" not in changed("recipe.epochs=4", space=space)[0].search
    assert changed("search.epochs=choice(2, 16)", "recipe.epochs=16", space=space)[0].search["epochs"] == choice(2, 16)


def test_what_all_rows_search_is_set_for_those_without_their_own():
    space = make_space(methods=(method("full"), method("adapter", r=8, lr=1e-3)))
    found, told = changed("search.lr=2e-5", space=space)
    assert [found.values_of(entry)["lr"] for entry in found.methods] == [2e-5, 1e-3]
    assert told[0].endswith("(not for adapter, with their own)")
    with pytest.raises(ValueError, match=r"search.lr=1: every method has its own lr.*methods.NAME.lr"):
        changed("search.lr=1", space=make_space(methods=(method("full", lr=1e-3),)))


def test_fields_of_a_task_in_own_files_are_set():
    space = make_space(tasks=("agreement", TASK))
    (_, task), told = changed("tasks.my.task.metric=macro_f1", "tasks.my.task.header=a, b", space=space)[0].tasks, None
    assert (task.metric, task.header, told) == ("macro_f1", ("a", "b"), None)


def test_a_known_method_is_added_with_its_own_search_whatever_the_order_of_names():
    space, told = changed(methods=["lora", "full", "ia3"])
    again, _ = changed(methods=["ia3", "lora", "full"])
    assert space == again
    assert [entry.label for entry in space.methods] == ["full", *(name for name in METHODS if name in ("lora", "ia3"))]
    assert space.entry("lora").settings == METHODS["lora"].search
    assert told[0] == "--methods full, 1 of 2"
    assert "--methods added lora, which searches what its method recommends" in told
    written = make_space(methods=(method("full"), *(own_search(entry.name) for entry in space.methods[1:])))
    assert folder_name(apply(written, RunOptions())[0]) == folder_name(space)
    assert changed("methods.lora.r=4", methods=["full", "lora"])[0].entry("lora").settings["r"] == 4


def test_fewer_training_examples_are_an_option():
    space, told = changed(train_examples=100)
    assert (space.recipe.train_examples, told) == (100, ["--train-examples 100 instead of 0"])
    assert space == changed("recipe.train_examples=100")[0]
    one, told = changed("recipe.train_examples.agreement=50", space=space)
    assert one.recipe.train_examples == {"agreement": 50, "entailment": 100}
    assert told == ["--set recipe.train_examples.agreement=50 instead of 100"]


@pytest.mark.parametrize(
    ("settings", "phrases"),
    [
        (("recipe.epoch=5",), ("--set recipe.epoch=5: Recipe has no 'epoch'", "did you mean 'epochs'")),
        (("recipe.epochs=0",), ("--set recipe.epochs=0: must be between 1 and 10000",)),
        (("recipe.epochs=five",), ("--set recipe.epochs=five: must be a whole number",)),
        (("recipe.clip=1e999",), ("must be a finite number",)),
        (("recipe.train_examples.rte=50",), ("task 'rte' is not in this space",)),
        (("recipe.train_examples.sentiment=5",), ("must be 0 (all) or at least 20",)),
        (("recipe.train_examples=few",), ("must be a whole number",)),
        (("recipe=5",), ("set one, as in recipe.epochs=...",)),
        (("seed.x=5",), ("seed has no fields",)),
        (("modles=x",), ("a space has no 'modles'", "known: budget")),
        (("models=x",), ("choose the models with --models",)),
        (("methods=full",), ("choose methods with --methods",)),
        (("methods.adaptor.r=8",), ("method 'adaptor' is not in this space", "did you mean 'adapter'")),
        (("methods.adapter.rr=8",), ("'rr' is no setting of 'adapter'", "did you mean 'r'")),
        (("methods.adapter.r=choise(8)",), ("did you mean 'choice'",)),
        (("methods.adapter.r=0",), ("r = 0: must be",)),
        (("methods.adapter.r=uniform(1, 8)",), ("r is a whole number",)),
        (("methods.adapter.ablated=2",), ("must be true or false",)),
        (("search.foo=1",), ("no method of the space has 'foo'",)),
        (("search.batch_size=0",), ("batch_size = 0: must be whole numbers",)),
        (("tasks.sentiment.metric=f1",), ("sentiment is a built-in task",)),
        (("tasks.sentimnt.metric=f1",), ("task 'sentimnt' is not in this space", "did you mean 'sentiment'")),
        (("seed=1", "seed=2"), ("seed is set twice",)),
        (("recipe.epochs=2", "--epochs", "3"), ("recipe.epochs is set twice, also by --epochs 3",)),
        (("recipe.epochs",), ("write PATH=VALUE",)),
        (("=3",), ("write PATH=VALUE",)),
    ],
)
def test_a_wrong_setting_is_refused(run, settings, phrases):
    wants(run(*QUICK, "--plan", "--set", *settings), exit_codes.BAD_INPUT, *phrases)


def test_a_method_that_has_rows_under_other_names_is_not_added():
    space = make_space(methods=(method("adapter", label="narrow", r=8),))
    with pytest.raises(ValueError, match=r"method 'adapter' is not in this space: .*known: narrow"):
        changed(methods=["adapter"], space=space)
