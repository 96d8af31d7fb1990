"""The paper's own numbers, printed beside ours where a space repeats its experiment.

`paper_tables.json` holds transcribed facts; nothing in it was measured here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from statistics import fmean
from typing import Any

from reports.cells import collect
from reports.manifest import Manifest
from reports.markdown import MISSING, Markup, escape, paragraphs, points
from reports.section import Section
from reports.store import Sweep
from reports.table import Table
from search_spaces.language import Cell

FILE = Path(__file__).parent.parent / "paper_tables.json"
TASKS = {"cola": "CoLA (Matthews)", "mrpc": "MRPC (accuracy)", "stsb": "STS-B (Pearson)", "rte": "RTE (accuracy)"}


@cache
def facts() -> dict[str, Any]:
    """What the paper printed: tables with their encoder, rows per method, scores as mean and std in points."""
    return json.loads(FILE.read_text(encoding="utf-8"))


def nominal_percent(manifest: Manifest, label: str) -> str:
    """The paper's #P of this method with the paper's settings; "" when the sweep repeats no paper we have."""
    if manifest.paper != facts()["paper"]:
        return ""
    name = manifest.methods[label].name
    shares = [row["nominal_percent"] for row in facts()["tables"][0]["rows"] if row["method"] == name]
    setting = facts()["settings"].get(name)
    return (f"{shares[0]:.1f} %" + (f" at {setting}" if setting else "")) if shares else ""


def text(sweep: Sweep) -> str:
    if sweep.manifest.paper != facts()["paper"]:
        return ""
    parts = [
        "## The paper's own numbers",
        f"{facts()['source']}. Transcribed, not measured here.",
        _warning(sweep.manifest),
    ]
    shown = tables(sweep)
    for printed in facts()["tables"]:
        name = f"paper_{printed['table']}"
        parts += [f"Table {printed['table']} of the paper, {printed['model']}:", shown[name].markdown()]
    return paragraphs(*parts)


def tables(sweep: Sweep) -> dict[str, Table]:
    """The paper's tables by their numbers; none when the sweep does not repeat it."""
    if sweep.manifest.paper != facts()["paper"]:
        return {}
    return {f"paper_{printed['table']}": _table(sweep, printed) for printed in facts()["tables"]}


def _warning(manifest: Manifest) -> str:
    encoders = {paper_table["encoder"] for paper_table in facts()["tables"]}
    others = [escape(model.title) for name, model in manifest.models.items() if name not in encoders]
    warning = (
        "Even with the same encoder, compare differences between methods rather than levels: the paper leaves its split, "
        "seeds and schedule open, does not say which standard deviation it prints, and tests no difference."
    )
    if others:
        warning += (
            f" **Levels are not comparable for {', '.join(others)}**: the paper's encoders are BERT_base and RoBERTa_base, "
            "so none of its numbers has a counterpart measured there."
        )
    return warning


def _table(sweep: Sweep, paper_table: Mapping[str, Any]) -> Table:
    """The paper's rows, each followed by ours where this sweep used the same encoder."""
    with_share = any(row["nominal_percent"] is not None for row in paper_table["rows"])
    measured = _measured(sweep, paper_table["encoder"]) if with_share else {}
    lines = []
    for row in paper_table["rows"]:
        cells = [_score(row["scores"].get(task, {})) for task in TASKS]
        means = [score["mean"] for score in row["scores"].values()]
        share = [f"{row['nominal_percent']:.1f} %"] if with_share else []
        lines.append([row["title"], *share, *cells, points(fmean(means))])
        lines += measured.get(row["method"], [])
    header = ["Method", *(["#P"] if with_share else []), *TASKS.values(), "Average"]
    told = Markup(f"Table {paper_table['table']} of the paper, {paper_table['model']}: transcribed, not measured here.")
    return Table(header=header, rows=lines, align="l" + "r" * (len(header) - 1), caption=told)


def _score(score: Mapping[str, float | None]) -> str:
    mean, std = score.get("mean"), score.get("std")
    return points(mean) + (f" ± {std:.1f}" if std is not None else "")


def _measured(sweep: Sweep, encoder: str) -> dict[str, list[list[object]]]:
    """Rows with this sweep's results by method name; empty when it did not use that encoder."""
    manifest = sweep.manifest
    if encoder not in manifest.models:
        return {}
    results = collect(sweep)
    found: dict[str, list[list[object]]] = {}
    for label, method in manifest.methods.items():
        cells = [results.get(Cell(model=encoder, task=task, method=label)) for task in TASKS]
        means = [cell.mean for cell in cells if cell is not None and cell.mean is not None]
        shown = [_score({"mean": cell.mean, "std": cell.std}) if cell else MISSING for cell in cells]
        mean = points(fmean(means)) if len(means) == len(TASKS) else MISSING
        title = Markup(f"↳ *measured here: {escape(manifest.methods[label].title)}*")
        found.setdefault(method.name, []).append([title, "", *shown, mean])
    return found


SECTION = Section(text=text, tables=tables)
