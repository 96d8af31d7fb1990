"""Derives from the command line of a sweep the command lines that repeat one of its cells."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from search_spaces.language import Cell

NARROWED = ("--models", "--tasks", "--methods", "--report", "--budget")


def cell_command(command: str, cell: Cell) -> str:
    """Return the command line that runs the sweep for this cell alone; "" if the sweep's command is unknown or not valid.

    The search is the same as in the sweep, because it does not depend on other cells. Trials whose results are found in the
    folder --out are not trained again. The sweep's time budget is left out, because it would end the search at another point.
    The report goes to a separate folder.
    """
    words = _words(command)
    if not words:
        return ""
    words = [word for word in words if not _of_another_cell(word, cell)]
    report = _value(words, "--report") or "reports"
    only = ("--models", cell.model, "--tasks", cell.task, "--methods", cell.method, "--report", f"{report}-one-cell")
    return shlex.join([*_without(words, NARROWED), *only])


def finals_command(command: str, folder_name: str, cell: Cell) -> str:
    """Return the command line that trains the finals of this cell again; "" if the sweep's command is unknown or not valid.

    `folder_name` is the name of the sweep's folder in the folder --out.
    """
    folder = _folder(command, folder_name)
    return shlex.join(["python", "-m", "orchestrator.reproduce", folder, str(cell)]) if folder else ""


def export_command(command: str, folder_name: str, cell: Cell) -> str:
    """Return the command line that exports the winner of this cell; arguments and "" as for `finals_command`."""
    folder = _folder(command, folder_name)
    return shlex.join(["peft-sweep", "export", folder, str(cell), "--to", "winner"]) if folder else ""


def _folder(command: str, folder_name: str) -> str:
    """Return the path of the sweep's folder, "" if the sweep's command is unknown or not valid."""
    words = _words(command)
    return f"{_value(words, '--out') or 'runs'}/{folder_name}" if words else ""


def _of_another_cell(word: str, cell: Cell) -> bool:
    """Return whether the word sets a field (--set) of a method or task that is not this cell's."""
    part, _, path = word.partition("=")[2].partition("=")[0].partition(".")
    mine = {"methods": cell.method, "tasks": cell.task}.get(part)
    return word.startswith("--set=") and mine is not None and path.rpartition(".")[0] != mine


def _words(command: str) -> list[str]:
    """Split the command line into words; an empty list if its quotation marks are not balanced."""
    try:
        return shlex.split(command)
    except ValueError:  # the text comes from a store to which other programs may write
        return []


def _value(words: Sequence[str], option: str) -> str:
    """Return the value of the option ("--out X" or "--out=X"); "" if it is not given."""
    for word, after in zip(words, [*words[1:], ""], strict=True):
        if word == option:
            return after
        if word.startswith(option + "="):
            return word.partition("=")[2]
    return ""


def _without(words: Sequence[str], options: Sequence[str]) -> list[str]:
    """Return the words without these options and their values."""
    kept, skip = [], False
    for word in words:
        if skip:
            skip = False
        elif word in options:
            skip = True
        elif word.partition("=")[0] not in options:
            kept.append(word)
    return kept
