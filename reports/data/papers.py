"""Reads published tables of papers from `paper_tables.json`; the report shows them beside the results of a sweep.

To add a paper, add an entry to that file; no code has to change.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from reports.data.manifest import Manifest, MethodFacts
from search_spaces.language import Scalar

FILE = Path(__file__).parent / "paper_tables.json"
EVERY = "*"  # as the task of a column: the mean over all tasks of the sweep
SECONDS = "seconds_per_epoch"  # as the metric of a column: training time per epoch instead of a score


@dataclass(frozen=True, kw_only=True)
class PaperColumn:
    """A column of a published table. `task` and `metric` name the sweep's scores that are shown in it; none if `task` is "".

    The metric is the paper's, also where the task's own score is another one. For all tasks (`EVERY`), "" stands for each
    task's own score.
    """

    title: str
    task: str = ""
    metric: str = ""


@dataclass(frozen=True, kw_only=True)
class PaperScore:
    """One entry of a published table: mean and standard deviation in the unit of the column, or text in their place.

    An empty entry has None for both numbers and "" for the text.
    """

    mean: float | None = None
    std: float | None = None
    words: str = ""


@dataclass(frozen=True, kw_only=True)
class PaperRow:
    """A row of a published table.

    method, settings: name and settings of the corresponding method of this project; a setting is None if the paper searched it.
    percent: published share of trained parameters, in percent; None if the paper prints none.
    told: the settings as text for the report ("r = 64"). scores: one per column of the table.
    """

    title: str
    method: str
    settings: Mapping[str, Scalar | None]
    percent: float | None
    told: str
    scores: tuple[PaperScore, ...]


@dataclass(frozen=True, kw_only=True)
class PaperTable:
    """A published table.

    model, encoder: the name of its backbone in the paper and in a space.
    average: whether the report adds a column with the mean over the columns.
    """

    name: str
    title: str
    model: str
    encoder: str
    average: bool
    columns: tuple[PaperColumn, ...]
    rows: tuple[PaperRow, ...]

    @property
    def has_shares(self) -> bool:
        """Whether any row of the table has a share of trained parameters."""
        return any(row.percent is not None for row in self.rows)

    def has(self, row: PaperRow, facts: MethodFacts) -> bool:
        """Whether a method row of a sweep corresponds to `row`: the method has the same name and the same settings.

        A setting that the sweep does not fix is ignored if all rows of this method in the table have the same value for it;
        otherwise the paper must have searched it, too.
        """
        alike = [other.settings for other in self.rows if other.method == row.method]
        return facts.name == row.method and all(
            facts.fixed.get(key, value if all(other.get(key) == value for other in alike) else None) == value
            for key, value in row.settings.items()
        )


@dataclass(frozen=True, kw_only=True)
class Paper:
    """The tables of one paper.

    source: citation for the report. caution: why its numbers may differ from those of a sweep with the same backbone.
    shares: a remark on its shares of trained parameters; may be "". unstated: by method, the names of settings that matter to the
    paper's claim and that it does not state; the report shows the sweep's values of them.
    """

    source: str
    caution: str
    shares: str
    unstated: Mapping[str, Sequence[str]]
    tables: tuple[PaperTable, ...]

    @property
    def encoders(self) -> dict[str, str]:
        """The backbones' names in the paper by their names in a space."""
        return {table.encoder: table.model for table in self.tables}

    def models_beside(self, printed: PaperTable, manifest: Manifest) -> list[str]:
        """Return the sweep's models to show in this table: the table's own backbone if the sweep has it, else all models of the
        sweep that do not occur in any table of the paper.
        """
        if printed.encoder in manifest.models:
            return [printed.encoder]
        return [name for name in manifest.models if name not in self.encoders]


@cache
def papers() -> dict[str, Paper]:
    """Return all papers of `paper_tables.json` by name. A space names its paper as "name" or "name/tables"."""
    found = json.loads(FILE.read_text(encoding="utf-8"))
    return {
        name: Paper(
            source=facts["source"],
            caution=facts["caution"],
            shares=facts.get("shares", ""),
            unstated=facts.get("unstated", {}),
            tables=tuple(_printed(table) for table in facts["tables"]),
        )
        for name, facts in found.items()
    }


def paper_of(manifest: Manifest) -> Paper | None:
    """Return the paper whose experiment the sweep repeats; None if the sweep names none or one that is not in the file."""
    return find(manifest.paper)


def find(named: str) -> Paper | None:
    """Return the paper that a space names in its field `paper`, with only the tables listed after a slash ("madapter/1,2").

    None if there is no paper of that name.
    """
    name, _, tables = named.partition("/")
    paper = papers().get(name)
    if paper is None or not tables:
        return paper
    return replace(paper, tables=tuple(table for table in paper.tables if table.name in tables.split(",")))


def nominal_percent(manifest: Manifest, label: str) -> str:
    """Return the paper's share of trained parameters ("#P") for a method row as text: "2.0 % at r = 64".

    "" if the sweep does not repeat a paper of the file, or the paper has no share for this method.
    """
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
