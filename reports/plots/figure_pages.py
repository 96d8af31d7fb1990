"""A figure of the report: its file name, one sentence about it, and a function that draws it. Large figures span several pages.

Listing the figures of a sweep draws nothing: a figure is drawn when its `draw` is called.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass

from matplotlib.figure import Figure

from reports.data.manifest import Manifest
from search_spaces.checks import NAME


@dataclass(frozen=True, kw_only=True)
class ReportFigure:
    """`name`: file name without its ending. `alt`: one line that describes the figure. `draw`: draws and returns it."""

    name: str
    alt: str
    draw: Callable[[], Figure]


@dataclass(frozen=True, kw_only=True)
class FigurePage:
    """The tasks of one model that are shown in one figure; `name` is the figure's file name without its ending."""

    name: str
    model: str
    tasks: tuple[str, ...]


def pages(manifest: Manifest, kind: str, tasks_per_page: int) -> list[FigurePage]:
    """The pages of every model, each with up to `tasks_per_page` of its tasks; `kind` is the first part of their names."""
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
    """The text as part of a file name: unchanged if it is safe there, else its last letters and digits and a hash of all of it.

    Models may be directories or ids of the Hugging Face Hub, which contain slashes.
    """
    if NAME.fullmatch(text):
        return text
    plain = re.sub(r"[^A-Za-z0-9]+", "-", text).strip("-")[-40:]
    return f"{plain}-{zlib.crc32(text.encode()):08x}"


def _suffix(number: int, group: tuple[str, ...], total: int) -> list[str]:
    """The part of a page's name that differs between a model's pages: its only task, or its number; [] for a single page."""
    if total == 1:
        return []
    return [file_name(group[0])] if len(group) == 1 else [str(number)]
