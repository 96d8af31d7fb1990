"""A figure of the report: its file name, one sentence about it, and a function that draws it. Large figures span several pages.

Every module of figures has a function that lists its figures for a sweep; one is drawn only when its `draw` is called.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass

from matplotlib.figure import Figure

from reports.data.manifest import Manifest
from search_spaces.language import NAME


@dataclass(frozen=True, kw_only=True)
class ReportFigure:
    """`name`: of the file, without its ending. `alt`: one line that describes the figure."""

    name: str
    alt: str
    draw: Callable[[], Figure]


@dataclass(frozen=True, kw_only=True)
class FigurePage:
    """The tasks of one model whose panels fit into one figure."""

    name: str
    model: str
    tasks: tuple[str, ...]


def pages(manifest: Manifest, kind: str, tasks_per_page: int) -> list[FigurePage]:
    """Pages of every model: its tasks, that many at a time."""
    tasks = list(manifest.tasks)
    groups = [tuple(tasks[start : start + tasks_per_page]) for start in range(0, len(tasks), tasks_per_page)]
    return [
        FigurePage(
            name="_".join([kind, file_name(model), *_suffix(number, group, len(groups))]), model=model, tasks=group
        )
        for model in manifest.models
        for number, group in enumerate(groups, start=1)
    ]


def file_name(text: str) -> str:
    """The text where it is safe in a path. Models may be directories or Hub ids: these get a hash."""
    if NAME.fullmatch(text):
        return text
    plain = re.sub(r"[^A-Za-z0-9]+", "-", text).strip("-")[-40:]
    return f"{plain}-{zlib.crc32(text.encode()):08x}"


def _suffix(number: int, group: tuple[str, ...], total: int) -> list[str]:
    """The part of a page's name that differs between pages of one model: none for one page, else the task, or the page number."""
    if total == 1:
        return []
    return [file_name(group[0])] if len(group) == 1 else [str(number)]
