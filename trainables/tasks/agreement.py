"""Grammar of the task `agreement`: acceptable English sentences, and sentences with one error of agreement in number.

A determiner must agree with its noun, a verb with the head of its subject, a reflexive pronoun with the head of the subject. In
some patterns the two words are adjacent; in others a phrase with another noun, singular or plural, stands between them, so
that the nearest noun is no reliable cue. Singular and plural subjects, and both forms of every verb, are equally frequent in
both classes. Each pattern is a function (random source, acceptable) -> text without capital and full stop.
"""

from __future__ import annotations

import random

# Nouns, singular and plural.
PEOPLE = (
    ("author", "authors"),
    ("baker", "bakers"),
    ("captain", "captains"),
    ("child", "children"),
    ("doctor", "doctors"),
    ("farmer", "farmers"),
    ("guest", "guests"),
    ("judge", "judges"),
    ("lawyer", "lawyers"),
    ("man", "men"),
    ("nurse", "nurses"),
    ("painter", "painters"),
    ("pilot", "pilots"),
    ("student", "students"),
    ("teacher", "teachers"),
    ("woman", "women"),
)
THINGS = (
    ("bicycle", "bicycles"),
    ("book", "books"),
    ("box", "boxes"),
    ("car", "cars"),
    ("chair", "chairs"),
    ("clock", "clocks"),
    ("door", "doors"),
    ("lamp", "lamps"),
    ("letter", "letters"),
    ("machine", "machines"),
    ("painting", "paintings"),
    ("picture", "pictures"),
    ("ship", "ships"),
    ("table", "tables"),
    ("tool", "tools"),
    ("window", "windows"),
)
# (form for a singular subject, form for a plural subject). Few verbs, so that a small training set contains them all.
VERBS = (("is", "are"), ("was", "were"), ("has", "have"))
HUMAN_ENDS = (
    ("tired", "late", "very kind", "hungry", "at home", "asleep", "ready", "in the garden"),
    ("a cold", "a question", "no money", "many friends", "a plan", "to leave"),
)
THING_ENDS = (
    ("old", "missing", "expensive", "broken", "heavy", "for sale", "too small", "very dirty"),
    ("a new owner", "no name", "a red handle", "a small scratch", "to go", "a number"),
)
# Determiners of singular and of plural nouns.
SINGULAR = ("this", "that", "each", "every", "one", "the", "my")
PLURAL = ("these", "those", "many", "several", "both", "two", "the", "my")
PRONOUNS = (("he", "they"), ("she", "they"), ("he", "we"), ("she", "we"))
LINKS = ("behind", "beside", "near", "next to")
ADVERBS = ("now", "often", "still", "always", "never", "also")
PAST = ("admired", "blamed", "defended", "described", "hurt", "praised")
# Only nouns whose reflexive is certain: "the child hurt themselves" would be acceptable to many.
GENDERED = (
    ("boy", "boys", "himself"),
    ("brother", "brothers", "himself"),
    ("king", "kings", "himself"),
    ("man", "men", "himself"),
    ("uncle", "uncles", "himself"),
    ("waiter", "waiters", "himself"),
    ("girl", "girls", "herself"),
    ("sister", "sisters", "herself"),
    ("queen", "queens", "herself"),
    ("woman", "women", "herself"),
    ("aunt", "aunts", "herself"),
    ("waitress", "waitresses", "herself"),
)


def draw(source: random.Random, acceptable: bool) -> tuple[str, None]:
    """Return (sentence, None): a random sentence, with one error of agreement unless `acceptable`."""
    pattern = source.choices(PATTERNS, WEIGHTS)[0]
    words = pattern(source, acceptable)
    return words[0].upper() + words[1:] + ".", None


def _pronoun(source: random.Random, good: bool) -> str:
    """Return a sentence such as "They are still late"; an error is in the verb."""
    plural = _coin(source)
    subject = source.choice(PRONOUNS)[plural]
    adverb = source.choice(ADVERBS)
    return f"{subject} {_predicate(source, True, plural == good, adverb)}"


def _determiner(source: random.Random, good: bool) -> str:
    """Return a sentence such as "These lamps are old"; an error is in the determiner, while the verb agrees with the noun."""
    plural, people = _coin(source), _coin(source)
    before = source.choice([word for word in (PLURAL if plural == good else SINGULAR) if word not in ("the", "my")])
    noun = source.choice(PEOPLE if people else THINGS)[plural]
    return f"{before} {noun} {_predicate(source, people, plural)}"


def _simple(source: random.Random, good: bool) -> str:
    """Return a sentence such as "My painters are hungry"; an error is in the verb."""
    plural, people = _coin(source), _coin(source)
    return f"{_subject(source, people, plural)} {_predicate(source, people, plural == good)}"


def _phrase(source: random.Random, good: bool) -> str:
    """Return a sentence such as "Each lamp next to the tables is old"; an error is in the verb."""
    plural, people = _coin(source), _coin(source)
    near = f"{source.choice(LINKS)} {_subject(source, people, _coin(source))}"
    return f"{_subject(source, people, plural)} {near} {_predicate(source, people, plural == good)}"


def _reflexive(source: random.Random, good: bool) -> str:
    """Return a sentence such as "Those women near the pilot described themselves"; an error is in the reflexive."""
    plural = _coin(source)
    singular, several, reflexive = source.choice(GENDERED)
    if plural == good:
        reflexive = "themselves"
    subject = f"{source.choice(PLURAL if plural else SINGULAR)} {several if plural else singular}"
    near = f" {source.choice(LINKS)} {_subject(source, True, _coin(source))}" if _coin(source) else ""
    return f"{subject}{near} {source.choice(PAST)} {reflexive}"


def _subject(source: random.Random, people: bool, plural: bool) -> str:
    noun = source.choice(PEOPLE if people else THINGS)[plural]
    return f"{source.choice(PLURAL if plural else SINGULAR)} {noun}"


def _predicate(source: random.Random, people: bool, plural: bool, adverb: str = "") -> str:
    verb = source.choice(VERBS)
    end = source.choice((HUMAN_ENDS if people else THING_ENDS)[verb[0] == "has"])
    return f"{verb[plural]} {adverb + ' ' if adverb else ''}{end}"


def _coin(source: random.Random) -> bool:
    return source.random() < 0.5


PATTERNS = (_pronoun, _determiner, _simple, _phrase, _reflexive)
WEIGHTS = (3, 3, 3, 2, 1)
