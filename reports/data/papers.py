"""Published tables of papers, to be shown beside the numbers of a sweep. They are in `paper_tables.json`; a paper is added
there, without code.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from reports.data.manifest import Manifest, MethodFacts
from search_spaces.language import Scalar

FILE = Path(__file__).parent / "paper_tables.json"
EVERY = "*"  # a column's task: the mean over all tasks of the sweep
SECONDS = "seconds_per_epoch"  # a column's metric beside those of the tasks


@dataclass(frozen=True, kw_only=True)
class PaperColumn:
    """A column of a published table. `task` and `metric`: the scores of a sweep that belong to it; none if `task` is empty."""

    title: str
    task: str = ""
    metric: str = ""


@dataclass(frozen=True, kw_only=True)
class PaperScore:
    """A published number in the unit of its column, or words in its place; None and "" for an empty cell."""

    mean: float | None = None
    std: float | None = None
    words: str = ""


@dataclass(frozen=True, kw_only=True)
class PaperRow:
    """A row of a published table.

    method, settings: the method of this project; None for a setting that is searched. percent: share of trained
    parameters as published. told: the settings in words.
    """

    title: str
    method: str
    settings: Mapping[str, Scalar | None]
    percent: float | None
    told: str
    scores: tuple[PaperScore, ...]


@dataclass(frozen=True, kw_only=True)
class PaperTable:
    """A published table. `model`: its name in the paper. `encoder`: its name in a space. `average`: add a column of means."""

    name: str
    title: str
    model: str
    encoder: str
    average: bool
    columns: tuple[PaperColumn, ...]
    rows: tuple[PaperRow, ...]

    @property
    def has_shares(self) -> bool:
        """Whether the table has shares of trained parameters."""
        return any(row.percent is not None for row in self.rows)

    def has(self, row: PaperRow, facts: MethodFacts) -> bool:
        """Whether a method of a sweep is the one of this row: equal name, and equal settings as far as these are fixed or differ
        between the table's rows of one method."""
        alike = [other.settings for other in self.rows if other.method == row.method]
        return facts.name == row.method and all(
            facts.fixed.get(key, value if all(other.get(key) == value for other in alike) else None) == value
            for key, value in row.settings.items()
        )


@dataclass(frozen=True, kw_only=True)
class Paper:
    """The tables of a paper.

    source: citation. caution: why the numbers may differ from a sweep's even with the same encoder. shares: a remark on
    its shares of parameters.
    """

    source: str
    caution: str
    shares: str
    tables: tuple[PaperTable, ...]

    @property
    def encoders(self) -> dict[str, str]:
        """The names of the models in the paper by their names in spaces."""
        return {table.encoder: table.model for table in self.tables}

    def models_beside(self, printed: PaperTable, manifest: Manifest) -> list[str]:
        """The sweep's models that are shown in this table: the table's encoder, else those that no table of the paper has."""
        if printed.encoder in manifest.models:
            return [printed.encoder]
        return [name for name in manifest.models if name not in self.encoders]


@cache
def papers() -> dict[str, Paper]:
    """Every known paper by the name that a space gives as its `paper`, before the slash."""
    found = json.loads(FILE.read_text(encoding="utf-8"))
    return {
        name: Paper(
            source=facts["source"],
            caution=facts["caution"],
            shares=facts.get("shares", ""),
            tables=tuple(_printed(table) for table in facts["tables"]),
        )
        for name, facts in found.items()
    }


def paper_of(manifest: Manifest) -> Paper | None:
    """The paper whose experiment the sweep repeats; None if it repeats none that is known."""
    return find(manifest.paper)


def find(named: str) -> Paper | None:
    """A paper by the `paper` of a space: its name and, after a slash, the tables to use ("madapter/1,2")."""
    name, _, tables = named.partition("/")
    paper = papers().get(name)
    if paper is None or not tables:
        return paper
    return replace(paper, tables=tuple(table for table in paper.tables if table.name in tables.split(",")))


def nominal_percent(manifest: Manifest, label: str) -> str:
    """The paper's #P of this method with the paper's settings; "" if the sweep repeats no known paper."""
    paper = find(manifest.paper.partition("/")[0])
    for printed in paper.tables if paper else ():
        for row in printed.rows:
            if row.percent is not None and printed.has(row, manifest.methods[label]):
                return f"{row.percent:.1f} %" + (f" at {row.told}" if row.told else "")
    return ""


def _printed(table: Mapping[str, Any]) -> PaperTable:
    columns = tuple(PaperColumn(**column) for column in table["columns"])
    rows = tuple(_row(row) for row in table["rows"])
    assert all(len(row.scores) == len(columns) for row in rows), f"{table['title']}: a score per column"
    return PaperTable(
        name=table["name"],
        title=table["title"],
        model=table["model"],
        encoder=table["encoder"],
        average=table.get("average", False),
        columns=columns,
        rows=rows,
    )


def _row(row: Mapping[str, Any]) -> PaperRow:
    return PaperRow(
        title=row["title"],
        method=row["method"],
        settings=row.get("settings", {}),
        percent=row.get("percent"),
        told=row.get("told", ""),
        scores=tuple(_score(score) for score in row["scores"]),
    )


def _score(score: str | float | list[float] | None) -> PaperScore:
    if isinstance(score, str):
        return PaperScore(words=score)
    mean, std = score if isinstance(score, list) else (score, None)
    return PaperScore(mean=mean, std=std)
