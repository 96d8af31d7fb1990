"""Loads a space by its name, from a Python file or from a YAML file with the same fields.

Scalars of a YAML file without quotation marks are read like the values of `--set`, not by the rules of YAML, for which 1e-4 is a
text and `no` is false. Nothing in the file is evaluated.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import MISSING, fields, replace
from pathlib import Path
from typing import Any

import yaml

from search_spaces.checks import check_name
from search_spaces.language import (
    LIMITS,
    Budget,
    Dimension,
    FileTask,
    MethodEntry,
    Recipe,
    Scalar,
    Space,
    ablated,
    method,
    own_search,
)
from search_spaces.loading import load, nearest
from search_spaces.peft_rows import peft_row
from search_spaces.values import SEARCHED, field_name, parse_field, parse_value

YAML = (".yaml", ".yml")
_TAGS = {f"tag:yaml.org,2002:{kind}" for kind in ("str", "seq", "map")}
_NAMED_BY_FILE = ("name", "folder")


class _Located(ValueError):
    """An error whose message already begins with file and line."""


def load_space(name: str, methods: Iterable[str] = ()) -> Space:
    """Return the space that is called `name` or is in the file at that path; see `search_spaces.loading.load`.

    Raises ValueError, naming file and line, if there is no such space or if it is invalid.
    """
    if not name.endswith(YAML):
        return load(name, methods)
    path = Path(name)
    if not path.is_file():
        raise ValueError(f"--space {name!r}: there is no such file")
    found = _YamlSpace(path).read()
    return replace(found, name=check_name("space", path.stem), folder=path.parent.resolve())


class _YamlSpace:
    """The reader of one YAML file. Its methods turn nodes of the file into parts of a space."""

    def __init__(self, path: Path):
        self._path = path

    def read(self) -> Space:
        try:
            root = yaml.compose(self._path.read_bytes(), Loader=yaml.BaseLoader)
        except RecursionError:
            raise ValueError(f"{self._path}:1: does not parse: it is nested too deeply") from None
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            problem = getattr(error, "problem", None) or str(error).splitlines()[0]
            line = mark.line + 1 if mark else 1
            raise ValueError(f"{self._path}:{line}: does not parse: {problem}") from None
        if root is None:
            raise ValueError(f"{self._path}:1: is empty; it needs models, tasks, methods and search")
        with self._at(root):
            return self._space(root)

    def _space(self, root: yaml.Node) -> Space:
        parts = {
            "models": lambda node: tuple(self._text(item) for item in self._items(node)),
            "tasks": lambda node: tuple(self._task(item) for item in self._items(node)),
            "methods": lambda node: tuple(self._method(item) for item in self._items(node)),
            "search": self._values,
            "recipe": lambda node: self._record(Recipe, node),
            "budget": lambda node: self._record(Budget, node),
        }
        values: dict[str, Any] = {}
        for name, node in self._mapping(root).items():
            with self._at(node):
                if name in _NAMED_BY_FILE:
                    raise ValueError(f"{name} cannot be set: the file's own name and folder are used")
                field_name(Space, name)
                values[name] = parts[name](node) if name in parts else self._field(Space, name, node)
        return self._made(Space, values)

    def _task(self, node: yaml.Node) -> str | FileTask:
        return self._text(node) if isinstance(node, yaml.ScalarNode) else self._record(FileTask, node)

    def _method(self, node: yaml.Node) -> MethodEntry:
        if isinstance(node, yaml.ScalarNode):
            return method(self._text(node))
        with self._at(node):
            if "peft_row" in self._mapping(node):
                return self._peft_row(node)
            values = self._values(node)
            name, own, removed = (values.pop(key, default) for key, default in _ROW.items())
            if not name:
                raise ValueError("a method needs its name, as in `name: adapter`")
            for key, flag in (("own_search", own), ("ablated", removed)):
                if not isinstance(flag, bool):
                    raise ValueError(f"{key} = {flag!r}: must be true or false")
            entry = (own_search if own else method)(name, **values)  # type: ignore[arg-type]
            return ablated(entry) if removed else entry

    def _peft_row(self, node: yaml.Node) -> MethodEntry:
        """Return a row of peft, written as `peft_row: {peft_type: LORA, r: 8}` with lr, label and so on beside it."""
        nodes = self._mapping(node)
        with self._at(nodes["peft_row"]):
            config = {key: self._any(item) for key, item in self._mapping(nodes.pop("peft_row")).items()}
        return peft_row(config, **{key: self._any(item) for key, item in nodes.items()})

    def _any(self, node: yaml.Node) -> Any:
        """Return a value or a searched one as `_value` does, a list, or a dict."""
        if isinstance(node, yaml.SequenceNode):
            return [self._any(item) for item in self._items(node)]
        if isinstance(node, yaml.MappingNode) and not set(self._mapping(node)) & set(SEARCHED):
            return {key: self._any(item) for key, item in self._mapping(node).items()}
        if isinstance(node, yaml.ScalarNode) and not node.style and self._text(node) in ("null", "~", ""):
            return None
        return self._value(node)

    def _record(self, kind: type[Any], node: yaml.Node) -> Any:
        with self._at(node):
            return self._made(kind, {name: self._field(kind, name, n) for name, n in self._mapping(node).items()})

    def _made(self, kind: type[Any], values: Mapping[str, Any]) -> Any:
        needed = [each.name for each in fields(kind) if each.default is MISSING and each.default_factory is MISSING]
        missing = [name for name in needed if name not in values]
        if missing:
            raise ValueError(f"{kind.__name__} lacks {', '.join(missing)}")
        return kind(**values)

    def _field(self, kind: type[Any], name: str, node: yaml.Node) -> object:
        with self._at(node):
            field_name(kind, name)
            if isinstance(node, yaml.SequenceNode):
                return tuple(self._text(item) for item in self._items(node))
            if isinstance(node, yaml.MappingNode) and name in LIMITS:
                return self._values(node)
            text = self._text(node)
            return text if node.style else parse_field(kind, name, text)

    def _values(self, node: yaml.Node) -> dict[str, Scalar | Dimension]:
        return {key: self._value(item) for key, item in self._mapping(node).items()}

    def _value(self, node: yaml.Node) -> Scalar | Dimension:
        """Return a value, or a searched one, written as a text such as choice(8, 16) or as {choice: [8, 16]}."""
        with self._at(node):
            if isinstance(node, yaml.ScalarNode):
                text = self._text(node)
                value = parse_value(text)
                return value if isinstance(value, Dimension) or not node.style else text
            if isinstance(node, yaml.SequenceNode):
                raise ValueError("a list of searched values is written {choice: [8, 16]} or choice(8, 16)")
            (name, items), *more = self._mapping(node).items() or [("", node)]
            if name not in SEARCHED or more:
                raise ValueError(f"{name!r} is no search: {nearest(name, SEARCHED)}; as in {{choice: [8, 16]}}")
            values = [self._value(item) for item in self._items(items)]
            if name != "choice" and len(values) != 2:
                raise ValueError(f"{name} needs the lowest and the highest value, as in {{{name}: [1e-4, 1e-2]}}")
            return SEARCHED[name](*values)

    def _mapping(self, node: yaml.Node) -> dict[str, yaml.Node]:
        if not isinstance(node, yaml.MappingNode) or node.tag not in _TAGS:
            raise _Located(f"{self._place(node)}: must be names with values, one per line, as in `epochs: 5`")
        found: dict[str, yaml.Node] = {}
        for key, value in node.value:
            with self._at(key):
                name = self._text(key)
                if name in found:
                    raise ValueError(f"{name!r} is given twice")
                found[name] = value
        return found

    def _items(self, node: yaml.Node) -> list[yaml.Node]:
        if not isinstance(node, yaml.SequenceNode) or node.tag not in _TAGS:
            raise _Located(f"{self._place(node)}: must be a list, as in [minilm], or lines that begin with -")
        return list(node.value)

    def _text(self, node: yaml.Node) -> str:
        if not isinstance(node, yaml.ScalarNode) or node.tag not in _TAGS:
            raise _Located(f"{self._place(node)}: must be a single value without a tag")
        return str(node.value)

    def _place(self, node: yaml.Node) -> str:
        return f"{self._path}:{node.start_mark.line + 1}"

    @contextmanager
    def _at(self, node: yaml.Node) -> Iterator[None]:
        """Put file and line before the message of a ValueError that has none yet."""
        try:
            yield
        except _Located:
            raise
        except ValueError as error:
            raise _Located(f"{self._place(node)}: {error}") from None


# What a row has beside its label and settings, and the default.
_ROW: Mapping[str, Any] = {"name": "", "own_search": False, "ablated": False}
