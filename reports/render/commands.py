"""The commands that repeat one cell, derived from the command of its sweep."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from search_spaces.language import Cell

NARROWED = ("--models", "--tasks", "--methods", "--report", "--budget")


def cell_command(command: str, cell: Cell) -> str:
    """The sweep's command for this cell alone, "" when it is not known or no shell could read it.

    Its report goes to a folder of its own.
    Without the sweep's time budget, which would end another search at another moment.
    A cell is searched in the same way whatever stands beside it, and a trial found under the same --out is not trained again.
    """
    words = _words(command)
    if not words:
        return ""
    report = _value(words, "--report") or "reports"
    only = ("--models", cell.model, "--tasks", cell.task, "--methods", cell.method, "--report", f"{report}-one-cell")
    return shlex.join([*_without(words, NARROWED), *only])


def finals_command(command: str, sweep: str, cell: Cell) -> str:
    """The command that trains the finals of this cell once more; "" if the sweep's command is not known."""
    words = _words(command)
    if not words:
        return ""
    folder = f"{_value(words, '--out') or 'runs'}/{sweep}"
    return shlex.join(["python", "-m", "orchestrator.reproduce", folder, str(cell)])


def _words(command: str) -> list[str]:
    try:
        return shlex.split(command)
    except ValueError:  # a store may hold any text
        return []


def _value(words: Sequence[str], option: str) -> str:
    for word, after in zip(words, [*words[1:], ""], strict=True):
        if word == option:
            return after
        if word.startswith(option + "="):
            return word.partition("=")[2]
    return ""


def _without(words: Sequence[str], options: Sequence[str]) -> list[str]:
    kept, skip = [], False
    for word in words:
        if skip:
            skip = False
        elif word in options:
            skip = True
        elif word.partition("=")[0] not in options:
            kept.append(word)
    return kept
