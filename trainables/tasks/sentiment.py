"""Grammar of the task `sentiment`: opinions in one or two clauses, positive or negative as a whole.

The rule: a clause has the polarity of its adjective or verb, reversed by a negation; of two clauses in contrast, the one that is
not conceded decides. Negations and contrasts are so frequent that words alone say little: a model has to relate them to what they
stand before. Each pattern is a function (random source, positive) -> text without capital and full stop.
"""

from __future__ import annotations

import random

NOUNS = (
    *("bar", "battery", "beach", "book", "bus", "cake", "camera", "coffee", "concert", "dentist", "driver", "film"),
    *("food", "garden", "guide", "hotel", "lamp", "lecture", "menu", "museum", "music", "phone", "play", "room"),
    *("screen", "service", "soup", "staff", "teacher", "tour", "view", "waiter"),
)
POSITIVE = (
    *(
        "amazing",
        "brilliant",
        "charming",
        "delightful",
        "excellent",
        "fantastic",
        "fine",
        "good",
        "great",
        "impressive",
    ),
    *(
        "lovely",
        "marvellous",
        "nice",
        "outstanding",
        "perfect",
        "pleasant",
        "remarkable",
        "splendid",
        "superb",
        "wonderful",
    ),
)
NEGATIVE = (
    *(
        "annoying",
        "appalling",
        "awful",
        "bad",
        "boring",
        "depressing",
        "disappointing",
        "disastrous",
        "disgusting",
        "dreadful",
    ),
    *("dull", "frustrating", "hopeless", "horrible", "miserable", "nasty", "poor", "terrible", "unpleasant", "useless"),
)
# Verbs in a form that is the same with and without negation.
LIKE = ("admire", "adore", "enjoy", "like", "love", "praise", "recommend")
DISLIKE = ("avoid", "condemn", "despise", "detest", "dislike", "hate", "regret")
WHO = ("I", "we", "they", "people", "our friends", "most guests")
ADVERBS = ("really", "truly", "certainly", "clearly")
# Each turns the polarity of what follows.
WAS_NOT = ("was not", "was never", "was hardly", "was far from", "was anything but")
DO_NOT = ("do not", "never", "hardly")


def draw(source: random.Random, positive: bool) -> tuple[str, None]:
    """Return (text, None): a random opinion that is positive or negative as a whole."""
    text = source.choices(PATTERNS, WEIGHTS)[0](source, positive)
    return text[0].upper() + text[1:] + ".", None


def _single(source: random.Random, positive: bool) -> str:
    """Return a text such as "the soup was far from awful"."""
    return _clause(source, positive)


def _agreeing(source: random.Random, positive: bool) -> str:
    """Return a text such as "the soup was not bad, and we love the view"."""
    return f"{_clause(source, positive)}, and {_clause(source, positive)}"


def _but(source: random.Random, positive: bool) -> str:
    """Return a text such as "the soup was great, but the staff was hardly pleasant", which is negative."""
    return f"{_clause(source, not positive)}, but {_clause(source, positive)}"


def _although(source: random.Random, positive: bool) -> str:
    """Return a text such as "although the soup was great, the staff was awful", which is negative."""
    return f"although {_clause(source, not positive)}, {_clause(source, positive)}"


def _conceded_last(source: random.Random, positive: bool) -> str:
    """Return a text such as "the staff was awful, although the soup was great", which is negative."""
    return f"{_clause(source, positive)}, although {_clause(source, not positive)}"


def _clause(source: random.Random, positive: bool) -> str:
    negated = source.random() < NEGATED
    good = positive != negated
    noun = source.choice(NOUNS)
    if source.random() < 0.75:
        word = source.choice(POSITIVE if good else NEGATIVE)
        verb = source.choice(WAS_NOT) if negated else source.choice(("was", f"was {source.choice(ADVERBS)}"))
        return f"the {noun} {verb} {word}"
    word = source.choice(LIKE if good else DISLIKE)
    verb = f"{source.choice(DO_NOT)} {word}" if negated else source.choice((word, f"{source.choice(ADVERBS)} {word}"))
    return f"{source.choice(WHO)} {verb} the {noun}"


# Share of the clauses that have a negation.
NEGATED = 0.4
PATTERNS = (_single, _agreeing, _but, _although, _conceded_last)
WEIGHTS = (6, 2, 3, 2, 1)
