"""Generated tasks: a grammar draws labelled sentences at random from a fixed seed, so that no data need be downloaded.

Train and test come from one random generator and share no text. Imports the standard library only.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from trainables.tasks import agreement, entailment, sentiment
from trainables.tasks.task_data import Task, Texts

TRAIN, TEST = 2000, 600
SEED = 20_001

Example = tuple[str, str | None]


@dataclass(frozen=True, kw_only=True)
class Grammar:
    """A generated task. `draw(random, label)` returns (first text, second text or None) of a random example with that label."""

    task: Task
    draw: Callable[[random.Random, bool], Example]


def _task(name: str, *classes: str) -> Task:
    return Task(
        name=name,
        title=name.capitalize(),
        metrics=("accuracy", "matthews"),
        source="generated",
        test_source="generated",
        classes=classes,
    )


GRAMMARS = (
    Grammar(task=_task("agreement", "unacceptable", "acceptable"), draw=agreement.draw),
    Grammar(task=_task("entailment", "not_entailment", "entailment"), draw=entailment.draw),
    Grammar(task=_task("sentiment", "negative", "positive"), draw=sentiment.draw),
)


def grammar(name: str) -> Grammar:
    return next(grammar for grammar in GRAMMARS if grammar.task.name == name)


def read(grammar: Grammar, train: int = TRAIN, test: int = TEST, seed: int = SEED) -> tuple[Texts, Texts]:
    """Return (train, test) with `train` and `test` examples in random order: both labels equally often (± 1), no text twice."""
    source = random.Random(f"{grammar.task.name}/{seed}")
    seen: set[Example] = set()
    parts = [_part(grammar, number, source, seen) for number in (train, test)]
    return parts[0], parts[1]


def _part(grammar: Grammar, number: int, source: random.Random, seen: set[Example]) -> Texts:
    """Draw `number` examples that are not in `seen`, and add them to it."""
    labels = [i % 2 for i in range(number)]
    source.shuffle(labels)
    examples = []
    for label in labels:
        example = grammar.draw(source, bool(label))
        while example in seen:
            example = grammar.draw(source, bool(label))
        seen.add(example)
        examples.append(example)
    pairs = [second for _, second in examples if second is not None]
    return Texts(first=[first for first, _ in examples], second=pairs or None, labels=[float(x) for x in labels])
