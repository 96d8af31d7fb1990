"""Every task of the dict, whatever its source, keeps the same promises."""

import subprocess
import sys
from pathlib import Path

import pytest

from search_spaces.checks import NAME
from trainables.tasks import TASKS, generated, sentiment
from trainables.tasks.task_loading import describe, load

GENERATED = [name for name, task in TASKS.items() if task.source == "generated"]


def load_generated(name: str, train: int = 0, test: int = 0):
    return load(name, data_dir=None, folder=Path("."), train_examples=train, test_examples=test)


@pytest.mark.parametrize("name", TASKS)
def test_a_task_is_listed_under_its_own_usable_name_with_metrics_that_fit(name):
    task = TASKS[name]
    assert task.name == name
    assert NAME.fullmatch(name)
    assert task.title
    assert task.test_source
    assert task.metrics
    assert set(task.metrics) <= set(task.form.metrics)
    assert task.outputs == (task.form.outputs or task.outputs)
    assert task.outputs > 0


def test_the_tasks_of_the_paper_report_the_paper_s_metrics():
    scores = {name: TASKS[name].metrics[0] for name in ("cola", "mrpc", "stsb", "rte")}
    assert scores == {"cola": "matthews", "mrpc": "accuracy", "stsb": "pearson", "rte": "accuracy"}
    assert "f1" in TASKS["mrpc"].metrics


def test_listing_the_tasks_imports_nothing_but_the_standard_library():
    code = (
        "import sys, trainables.tasks;"
        "heavy = {m.split('.')[0] for m in sys.modules} - set(sys.stdlib_module_names);"
        "ours = {'trainables', 'search_spaces'};"
        "print(sorted(m for m in heavy - ours if not m.startswith('__')))"
    )
    bare = subprocess.run(
        [sys.executable, "-S", "-c", code], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[3]
    )
    assert bare.stdout.strip() == "[]"


def test_describing_and_checking_tasks_loads_no_numbers_library():
    code = (
        "import sys; from pathlib import Path; from trainables.tasks.task_loading import check_files, describe;"
        "describe('mrpc'); check_files('agreement', None, Path('.'));"
        "print(sorted({'numpy', 'pandas', 'torch', 'datasets', 'sklearn', 'transformers'} & set(sys.modules)))"
    )
    bare = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[3]
    )
    assert bare.stdout.strip() == "[]"


def test_an_unknown_task_is_refused_with_the_nearest_names():
    with pytest.raises(ValueError, match=r"'mprc' is not known: did you mean 'mrpc'.*known: agreement, boolq"):
        describe("mprc")


@pytest.mark.parametrize("name", GENERATED)
def test_a_generated_task_is_the_same_every_time(name):
    assert load_generated(name) == load_generated(name)


def test_generated_texts_do_not_depend_on_the_hash_seed():
    code = (
        "from trainables.tasks.generated import GRAMMARS, read; import hashlib;"
        "print(hashlib.sha256(repr([read(g) for g in GRAMMARS]).encode()).hexdigest())"
    )

    def run(seed: str) -> str:
        return subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            cwd=Path(__file__).parents[3],
            env={"PYTHONHASHSEED": seed},
        ).stdout

    assert run("1") == run("2")


@pytest.mark.parametrize("name", GENERATED)
def test_a_generated_task_has_the_promised_sizes_and_half_of_each_label(name):
    train, test = generated.read(generated.grammar(name))
    assert (len(train), len(test)) == (2000, 600)
    for part in (train, test):
        assert sum(part.labels) == len(part) / 2
        assert len(part.first) == len(part.labels)
        assert part.second is None or len(part.second) == len(part.labels)


@pytest.mark.parametrize("name", GENERATED)
def test_no_generated_text_stands_in_two_places_whatever_its_label(name):
    train, test = generated.read(generated.grammar(name))
    pairs = [pair for part in (train, test) for pair in zip(part.first, part.second or part.first, strict=True)]
    assert len(set(pairs)) == len(pairs) == 2600


@pytest.mark.parametrize(("name", "most"), [("agreement", 14), ("entailment", 26), ("sentiment", 16)])
def test_generated_examples_are_short(name, most):
    """Words and full stops and the tokens around them; nearly every word of the grammars is one word piece."""
    train, _ = generated.read(generated.grammar(name))
    words = sum(len(text.replace(".", " .").split()) + 1 for text in train.first + (train.second or []))
    assert words / len(train) + 1 <= most


@pytest.mark.parametrize("name", GENERATED)
def test_another_seed_writes_other_texts(name):
    grammar = generated.grammar(name)
    one, other = (set(generated.read(grammar, seed=seed)[0].first) for seed in (1, 2))
    assert len(one & other) < 0.9 * len(one)


@pytest.mark.parametrize("name", GENERATED)
def test_generated_labels_cannot_be_told_from_the_words_alone(name):
    """A bag-of-words classifier with all 2000 examples stays below 70 %: how words are put together matters."""
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.linear_model import LogisticRegression

    train, test = generated.read(generated.grammar(name))

    def bag(part):
        return [f"{a} || {b}" for a, b in zip(part.first, part.second or [""] * len(part), strict=True)]

    words = CountVectorizer(token_pattern=r"\w+")
    model = LogisticRegression(max_iter=500).fit(words.fit_transform(bag(train)), train.labels)
    assert model.score(words.transform(bag(test)), test.labels) < 0.70


def test_the_labels_of_the_sentiment_task_follow_from_its_rule():
    """A reader that knows the rule, and the grammar's words alone, makes no mistake."""
    good, bad = {*sentiment.POSITIVE, *sentiment.LIKE}, {*sentiment.NEGATIVE, *sentiment.DISLIKE}
    negations = ("not", "never", "hardly", "far from", "anything but")

    def deciding(text: str) -> str:
        first, _, second = text.lower().rstrip(".").replace("anything but", "anything_but").partition(", ")
        concession_first = first.startswith("although ") or second.startswith("but ")
        return (second if concession_first else first).replace("anything_but", "anything but")

    def positive(text: str) -> bool:
        clause = deciding(text)
        words = [word for word in clause.split() if word in good | bad]
        assert len(words) == 1, text
        return (words[0] in good) != any(f" {negation} " in clause for negation in negations)

    for part in generated.read(generated.grammar("sentiment")):
        assert [float(positive(text)) for text in part.first] == part.labels


@pytest.mark.parametrize("name", GENERATED)
def test_constant_predictions_score_one_half_on_a_generated_task(name):
    assert load_generated(name, test=400).majority == pytest.approx(50.0)
