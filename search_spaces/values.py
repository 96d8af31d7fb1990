"""Values of a space as text: parsed on the command line and in YAML files, and printed. Nothing is evaluated.

16    1e-3    true    snip    'a text'    choice(8, 16)    uniform(0, 1)    log_uniform(1e-4, 1e-2)
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any, Literal, get_origin, get_type_hints

from search_spaces.language import Choice, Dimension, Range, Scalar, choice, log_uniform, uniform
from search_spaces.loading import nearest

SEARCHED: Mapping[str, Callable[..., Dimension]] = {"choice": choice, "uniform": uniform, "log_uniform": log_uniform}
_LITERALS = (ast.Constant, ast.Name, ast.UnaryOp)
_WORDS: Mapping[str, bool] = {"true": True, "True": True, "false": False, "False": False}


def parse_value(text: str) -> Scalar | Dimension:
    """Return the value that a text stands for: a number, true or false, a searched value, or else the text itself.

    Raises ValueError for a searched value that is malformed.
    """
    node = _expression(text)
    if isinstance(node, ast.Call):
        return _dimension(text, node)
    if node is None and "(" in text:
        raise ValueError(f"{text!r} cannot be read: write choice(8, 16), uniform(0, 1) or log_uniform(1e-4, 1e-2)")
    return text if node is None else _scalar(node, text)


def parse_field(record: type, name: str, text: str) -> Any:
    """Return the value that a text stands for in the field `name` of a record of the space; the record checks it.

    Raises ValueError for a field that the record does not have, and for one that takes no single value.
    """
    kind = get_type_hints(record)[field_name(record, name)]
    if kind in (int, float, bool, int | Mapping[str, int]):
        return parse_value(text)
    if kind == str | None and text in ("None", "null", "~"):
        return None
    if kind in (str, str | None) or get_origin(kind) is Literal:
        return _unquoted(text)
    if kind == tuple[str, ...]:
        return tuple(part.strip() for part in text.split(",")) if text else ()
    raise ValueError(f"{name} cannot be given as a text; write it in a Python file")


def field_name(record: type, name: str) -> str:
    """Return `name`. Raises ValueError, with the most similar names, if the record has no such field."""
    known = [declared.name for declared in fields(record)]
    if name not in known:
        raise ValueError(f"{record.__name__} has no {name!r}: {nearest(name, known)}")
    return name


def text_of(value: Scalar | Dimension | None) -> str:
    """Return the text that `parse_value` turns into this value."""
    if isinstance(value, Choice):
        return f"choice({', '.join(map(repr, value.values))})"
    if isinstance(value, Range):
        return f"{'log_' if value.log else ''}uniform({value.low!r}, {value.high!r})"
    return str(value)


def _expression(text: str) -> ast.expr | None:
    """Return the syntax tree of the text, None if it is no expression of Python."""
    try:
        return ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return None


def _dimension(text: str, node: ast.Call) -> Dimension:
    name = node.func.id if isinstance(node.func, ast.Name) else ast.unparse(node.func)
    if name not in SEARCHED:
        raise ValueError(f"{text!r}: {name!r} is no search: {nearest(name, SEARCHED)}")
    if node.keywords or not all(isinstance(argument, _LITERALS) for argument in node.args):
        raise ValueError(f"{text!r}: give the values one by one, as in choice(8, 16)")
    if name != "choice" and len(node.args) != 2:
        raise ValueError(f"{text!r}: needs the lowest and the highest value, as in {name}(1e-4, 1e-2)")
    return SEARCHED[name](*(_scalar(argument, ast.unparse(argument)) for argument in node.args))


def _scalar(node: ast.expr, text: str) -> Scalar:
    """Return the number, text, true or false of a syntax tree; else `text`, which a name and any other expression stand for."""
    if isinstance(node, ast.Name):
        return _WORDS.get(node.id, node.id)
    try:
        value = ast.literal_eval(node)
    except ValueError:
        return text
    return value if isinstance(value, Scalar) else text


def _unquoted(text: str) -> str:
    node = _expression(text)
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else text
