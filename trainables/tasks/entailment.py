"""Grammar of the task `entailment`: pairs of a premise and a hypothesis, which follows from the premise or does not.

Each pattern is a function (random source, follows) -> (premise, hypothesis), without capitals and full stops. The patterns test
roles in active and passive sentences, quantifiers, conjunctions, general and special nouns, comparisons, negations, and
intentions as opposed to actions: some depend on the meaning of words, some on syntax. "All" implies "some", as in everyday
language.
"""

from __future__ import annotations

import random

NAMES = (
    *("Adam", "Alice", "Anna", "Ben", "Carol", "Clara", "Daniel", "Emma", "Frank", "Grace", "Henry", "Jack"),
    *("Julia", "Karen", "Laura", "Lucy", "Mark", "Mary", "Nick", "Oliver", "Paul", "Peter", "Sam", "Sarah"),
)
# Verbs whose past and participle are the same.
ACTS = ("called", "followed", "greeted", "helped", "invited", "paid", "pushed", "taught", "thanked", "visited")
# Actions without another person: (past tense, base form).
DEEDS = (
    ("danced", "dance"),
    ("sang", "sing"),
    ("left", "leave"),
    ("slept", "sleep"),
    ("won the race", "win the race"),
    ("opened the door", "open the door"),
    ("cooked dinner", "cook dinner"),
    ("read the letter", "read the letter"),
    ("repaired the car", "repair the car"),
    ("found the key", "find the key"),
    ("cleaned the kitchen", "clean the kitchen"),
    ("played the piano", "play the piano"),
)
# General nouns with more special ones.
KINDS = {
    "an animal": ("a cat", "a dog", "a horse", "a rabbit", "a sheep"),
    "a flower": ("a rose", "a tulip", "a lily", "a daisy"),
    "a fruit": ("an apple", "a banana", "a pear", "an orange"),
    "an instrument": ("a guitar", "a piano", "a violin", "a flute"),
    "a tool": ("a hammer", "a saw", "a drill", "a screwdriver"),
    "a vehicle": ("a car", "a truck", "a bus", "a motorcycle"),
    "a drink": ("a coffee", "a tea", "a beer", "a lemonade"),
}
GETTING = (("bought", "buy"), ("chose", "choose"), ("ordered", "order"), ("sold", "sell"))
GROUPS = ("artists", "children", "dogs", "farmers", "guests", "horses", "players", "sailors", "students", "tourists")
PLACES = ("in the garden", "in the house", "on the beach", "on the boat", "at the station", "in the park")
STATES = ("hungry", "asleep", "tired", "wet", "happy", "cold", "afraid", "silent")
COLOURS = ("black", "blue", "brown", "green", "grey", "red", "white", "yellow")
THINGS = ("bag", "boat", "book", "chair", "coat", "door", "hat", "house", "lamp", "table")
OPPOSITES = (("taller", "shorter"), ("older", "younger"), ("richer", "poorer"), ("faster", "slower"))
DONE = ("managed to", "remembered to", "was able to")
NOT_DONE = ("failed to", "forgot to", "refused to", "promised to")
# From strongest to weakest: each implies those after it.
QUANTIFIERS = ("all the", "most of the", "some of the")


def draw(source: random.Random, follows: bool) -> tuple[str, str]:
    """Return a random (premise, hypothesis); the hypothesis follows from the premise if and only if `follows` is true."""
    premise, hypothesis = source.choices(PATTERNS, WEIGHTS)[0](source, follows)
    return _sentence(premise), _sentence(hypothesis)


def _roles(source: random.Random, follows: bool) -> tuple[str, str]:
    """Pattern: "Anna called Tom" entails "Tom was called by Anna", but not "Tom called Anna"."""
    a, b = source.sample(NAMES, 2)
    act = source.choice(ACTS)
    done_by_a = (f"{a} {act} {b}", f"{b} was {act} by {a}")
    done_by_b = (f"{b} {act} {a}", f"{a} was {act} by {b}")
    premise, same = source.sample(done_by_a, 2)
    return premise, same if follows else source.choice(done_by_b)


def _quantifier(source: random.Random, follows: bool) -> tuple[str, str]:
    """Pattern: "All the guests on the boat were wet" entails "Some of the guests on the boat were wet", but not conversely."""
    strong, weak = sorted(source.sample(range(len(QUANTIFIERS)), 2))
    whose, state = f"{source.choice(GROUPS)} {source.choice(PLACES)}", source.choice(STATES)
    stronger, weaker = (f"{QUANTIFIERS[i]} {whose} were {state}" for i in (strong, weak))
    return (stronger, weaker) if follows else (weaker, stronger)


def _conjunction(source: random.Random, follows: bool) -> tuple[str, str]:
    """Pattern: "Anna and Tom slept" entails "Tom slept"; "Anna or Tom slept" does not."""
    a, b = source.sample(NAMES, 2)
    deed = source.choice(DEEDS)[0]
    word = "and" if follows else "or"
    premise = f"both {a} and {b} {deed}" if follows and _coin(source) else f"{a} {word} {b} {deed}"
    return premise, f"{source.choice((a, b))} {deed}"


def _two_facts(source: random.Random, follows: bool) -> tuple[str, str]:
    """Pattern: "Anna slept and Tom danced" entails "Tom danced", but not "Anna danced"."""
    a, b = source.sample(NAMES, 2)
    one, two = (deed[0] for deed in source.sample(DEEDS, 2))
    true, false = source.choice((((a, one), (a, two)), ((b, two), (b, one))))
    who, deed = true if follows else false
    return f"{a} {one} {source.choice(('and', 'while', 'but'))} {b} {two}", f"{who} {deed}"


def _kind(source: random.Random, follows: bool) -> tuple[str, str]:
    """Pattern: "Anna bought a rose" entails "Anna bought a flower", but not conversely; a negation reverses the direction."""
    general = source.choice(tuple(KINDS))
    special = source.choice(KINDS[general])
    past, base = source.choice(GETTING)
    negated = _coin(source)
    name = source.choice(NAMES)
    verb = f"{name} did not {base}" if negated else f"{name} {past}"
    from_special = follows != negated
    premise, hypothesis = (special, general) if from_special else (general, special)
    return f"{verb} {premise}", f"{verb} {hypothesis}"


def _comparison(source: random.Random, follows: bool) -> tuple[str, str]:
    """Pattern: "Anna is taller than Tom" entails "Tom is shorter than Anna", but not "Tom is taller than Anna"."""
    a, b = source.sample(NAMES, 2)
    one, other = source.sample(source.choice(OPPOSITES), 2)
    hypothesis = (
        f"{b} is {other} than {a}" if follows else source.choice((f"{b} is {one} than {a}", f"{a} is {other} than {b}"))
    )
    return f"{a} is {one} than {b}", hypothesis


def _category(source: random.Random, follows: bool) -> tuple[str, str]:
    """Pattern: "Anna bought a rose" entails "Anna bought a flower", but not "Anna bought a tool"."""
    right, wrong = source.sample(tuple(KINDS), 2)
    who = f"{source.choice(NAMES)} {source.choice(GETTING)[0]}"
    return f"{who} {source.choice(KINDS[right])}", f"{who} {right if follows else wrong}"


def _colour(source: random.Random, follows: bool) -> tuple[str, str]:
    """Pattern: "The red hat is near the blue chair" entails "The hat is red", but not "The hat is blue"."""
    true, false = source.sample(COLOURS, 2)
    thing, other = source.sample(THINGS, 2)
    colour = true if follows else false
    return f"the {true} {thing} is near the {false} {other}", f"the {thing} is {colour}"


def _negation(source: random.Random, follows: bool) -> tuple[str, str]:
    """Pattern: "Anna never sang" entails "Anna did not sing", but not "Anna sang"."""
    name = source.choice(NAMES)
    past, base = source.choice(DEEDS)
    yes = (f"{name} {past}", f"{name} {past} again", f"{name} always {past}", f"{name} really {past}")
    no = (f"{name} did not {base}", f"{name} never {past}", f"it is not true that {name} {past}")
    affirmed = _coin(source)
    premise = source.choice(yes[1:] if affirmed else no[1:])
    return premise, (yes if affirmed == follows else no)[0]


def _intention(source: random.Random, follows: bool) -> tuple[str, str]:
    """Pattern: "Anna managed to open the door" entails "Anna opened the door"; "Anna failed to open the door" does not."""
    name = source.choice(NAMES)
    past, base = source.choice(DEEDS)
    return f"{name} {source.choice(DONE if follows else NOT_DONE)} {base}", f"{name} {past}"


def _coin(source: random.Random) -> bool:
    return source.random() < 0.5


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:] + "."


PATTERNS = (
    _roles,
    _comparison,
    _kind,
    _two_facts,
    _quantifier,
    _conjunction,
    _category,
    _colour,
    _negation,
    _intention,
)
WEIGHTS = (1, 1, 1, 1, 2, 2, 2, 2, 2, 2)
