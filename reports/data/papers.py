"""What papers printed, as facts beside which a sweep's own numbers can stand. `paper_tables.json` holds them, and nothing that
was measured here: a paper is added there, without code.
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
    """`task` and `metric` say what of a sweep belongs into it, nothing when `task` is empty."""

    title: str
    task: str = ""
    metric: str = ""


@dataclass(frozen=True, kw_only=True)
class PaperScore:
    """A printed number, in the unit of its column, or the words that stand for it; None and "" where there is nothing."""

    mean: float | None = None
    std: float | None = None
    words: str = ""


@dataclass(frozen=True, kw_only=True)
class PaperRow:
    """A printed row: a method of ours by name and settings, None for one that is searched. `percent` is its share of trained
    parameters as printed, `told` the settings in words.
    """

    title: str
    method: str
    settings: Mapping[str, Scalar | None]
    percent: float | None
    told: str
    scores: tuple[PaperScore, ...]


@dataclass(frozen=True, kw_only=True)
class PaperTable:
    """A printed table. `model` as the paper names it, `encoder` the same as a space does; `average`: over its columns."""

    name: str
    title: str
    model: str
    encoder: str
    average: bool
    columns: tuple[PaperColumn, ...]
    rows: tuple[PaperRow, ...]

    @property
    def has_shares(self) -> bool:
        """Whether it prints shares of trained parameters."""
        return any(row.percent is not None for row in self.rows)

    def has(self, row: PaperRow, facts: MethodFacts) -> bool:
        """Whether this method of a sweep is what the row reports: its name and settings, where those are fixed or tell the
        table's rows of one method apart."""
        alike = [other.settings for other in self.rows if other.method == row.method]
        return facts.name == row.method and all(
            facts.fixed.get(key, value if all(other.get(key) == value for other in alike) else None) == value
            for key, value in row.settings.items()
        )


@dataclass(frozen=True, kw_only=True)
class Paper:
    """`source` says where the numbers are from, `caution` why they may differ from ours even with the same encoder, `shares`
    what is known of its shares of parameters.
    """

    source: str
    caution: str
    shares: str
    tables: tuple[PaperTable, ...]

    @property
    def encoders(self) -> dict[str, str]:
        """The paper's names of its models, by the names that spaces use."""
        return {table.encoder: table.model for table in self.tables}

    def models_beside(self, printed: PaperTable, manifest: Manifest) -> list[str]:
        """The sweep's models whose numbers stand in this table: its own encoder, else those that no table of the paper has."""
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
    """The paper whose experiment the sweep repeats; None when it repeats none that we have."""
    return find(manifest.paper)


def find(named: str) -> Paper | None:
    """A paper by what a space says of it: its name, and after a slash those of its tables that count ("madapter/1,2")."""
    name, _, tables = named.partition("/")
    paper = papers().get(name)
    if paper is None or not tables:
        return paper
    return replace(paper, tables=tuple(table for table in paper.tables if table.name in tables.split(",")))


def nominal_percent(manifest: Manifest, label: str) -> str:
    """The paper's #P of this method with the paper's settings; "" when the sweep repeats no paper we have."""
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
