"""Loads a space, by its name among the files of `search_spaces/spaces` or by the path of a user's own file."""

from __future__ import annotations

import ast
import difflib
import re
import runpy
import sys
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import fields, is_dataclass, replace
from inspect import signature
from pathlib import Path

from search_spaces import language
from search_spaces.checks import check_name
from search_spaces.language import Space
from search_spaces.plugins import check_plugins, space_files

FOLDER = Path(__file__).parent / "spaces"
_UNEXPECTED = re.compile(r"(\w+)\.__init__\(\) got an unexpected keyword argument '(\w+)'")


def names() -> list[str]:
    """Names of the spaces that ship with the project and with other packages."""
    return sorted(_files())


def _files() -> dict[str, Path]:
    """Return the files of all spaces that have a name."""
    own = {path.stem: path for path in sorted(FOLDER.glob("*.py")) if path.stem != "__init__"}
    return own | space_files(own)


def nearest(word: str, known: Iterable[str]) -> str:
    """Return the end of an error message about an unknown `word`: the most similar known names, then all of them."""
    known = sorted(known)
    close = difflib.get_close_matches(word, known, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(map(repr, close))}? " if close else ""
    return f"{hint}known: {', '.join(known)}"


def load(name: str, methods: Iterable[str] = ()) -> Space:
    """Return the shipped space called `name` or, if `name` ends in ".py", the space in the file at that path.

    The file assigns the space to the name `space`, or defines a function `space` that returns it. If the function has a
    parameter, it is called with `methods`, the names of all methods.

    Raises ValueError if there is no such space or file, if another package offers something that cannot be used and, naming file
    and line, if the file does not parse, raises an exception, or describes an invalid space.
    """
    known = _files()
    check_plugins()
    if name.endswith(".py"):
        path = Path(name)
        if not path.is_file():
            raise ValueError(f"--space {name!r}: there is no such file; {nearest(path.stem, names())}")
    else:
        if name not in known:
            raise ValueError(
                f"--space {name!r} is not known: {nearest(name, known)}; or give the path of a .py or .yaml file"
            )
        path = known[name]
    own = check_name("space", path.stem if name.endswith(".py") else name)
    return replace(_execute(path, tuple(methods)), name=own, folder=path.parent.resolve())


def docstring(name: str) -> str:
    """Return the first line of the docstring of a space that has a name, without executing its file."""
    text = ast.get_docstring(ast.parse(_files()[name].read_text(encoding="utf-8")))
    return (text or "").split("\n")[0]


def _execute(path: Path, methods: tuple[str, ...]) -> Space:
    """Run a space file and return its space. Raises ValueError naming file and line for any error of the file."""
    try:
        with _importing_from(path.parent.resolve()):
            found = runpy.run_path(str(path)).get("space")
            if callable(found):
                found = found(methods) if signature(found).parameters else found()
    except SyntaxError as error:
        raise ValueError(f"{error.filename or path}:{error.lineno or 1}: does not parse: {error.msg}") from None
    # A user's file may raise any exception. That is an error of the file, not of this project.
    except (Exception, SystemExit) as error:
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        raise ValueError(f"{path}:{lines[-1] if lines else 1}: {_explained(error)}") from None
    if not isinstance(found, Space):
        raise ValueError(f"{path}: must assign a Space to the name `space`, not {type(found).__name__}")
    return found


@contextmanager
def _importing_from(folder: Path) -> Iterator[None]:
    """Let a space file import modules beside it, as a script can. They are forgotten afterwards: another space has its own."""
    known = set(sys.modules)
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        for name in set(sys.modules) - known:
            if Path(getattr(sys.modules[name], "__file__", None) or "/").is_relative_to(folder):
                del sys.modules[name]


def _explained(error: BaseException) -> str:
    """Return an error's message; for a misspelt field of a class of the language, one with the most similar fields."""
    if type(error) is ValueError:
        return str(error)
    unexpected = _UNEXPECTED.search(str(error))
    kind = getattr(language, unexpected[1], None) if unexpected else None
    if unexpected and kind is not None and is_dataclass(kind):
        return f"{unexpected[1]} has no {unexpected[2]!r}: {nearest(unexpected[2], [f.name for f in fields(kind)])}"
    return f"{type(error).__name__}: {error}"
