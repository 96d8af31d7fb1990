"""Adds the report of a sweep to its runs in MLflow: files, description and leaderboard to the sweep's run, results to the cells'.

All numbers are read from the report's `leaderboard.json`; none is computed here. Everything may be repeated safely.
"""

from __future__ import annotations

import json
import math
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from orchestrator.tracking.mlflow_store import Store, environment
from orchestrator.tracking.run_edits import Edit, Key, Point, RunUpdates
from orchestrator.tracking.run_projection import MOST_CELLS, cell_metric
from orchestrator.tracking.tracker import open_store
from search_spaces import keys
from search_spaces.events import DevicesShared, LedgerRecord, SweepFinished, SweepInterrupted, SweepOpened
from search_spaces.language import Cell
from search_spaces.redaction import redact

# Name of the metric of a cell's run, with the name of the task's score in place of "{}", by column of the leaderboard.
METRICS = {
    "mean": "test/{}",
    "sd": "test/{}_sd",
    "low": "test/{}_low",
    "high": "test/{}_high",
    "n": "test/n",
    "behind": "test/behind_best",
    "p": "test/p",
    "trained": "weight_counts/trained",
    "trained_percent": "weight_counts/trained_percent",
}
_TABLE = ("Model", "Task", "Method", "Test score", "n", "p", "Verdict", "Configuration")
# Events after which the report has the same results.
WITHOUT_RESULT = (SweepOpened, DevicesShared, SweepInterrupted, SweepFinished)

# MLflow's limit for a tag is 8000.
MOST_CHARACTERS = 7500

Row = Mapping[str, Any]


def publish(
    uri: str, artifacts: Path, folder: Path, records: Sequence[LedgerRecord], report: Path, files: Sequence[str]
) -> str:
    """Add the report in the folder `report`, which consists of `files`, to the sweep whose ledger has these records.

    Returns the address of the sweep's run in the UI of a server, "" for a database. Raises whatever error the store has.
    """
    table = json.loads((report / "leaderboard.json").read_text(encoding="utf-8"))
    rows = [dict(zip(table["columns"], values, strict=True)) for values in table["data"]]
    with environment():
        store = open_store(uri, artifacts, folder, records)
        # The same as long as no result can have changed, so that MLflow does not store equal points a second time.
        times = (record.time for record in reversed(records) if not isinstance(record.event, WITHOUT_RESULT))
        time = round(next(times, records[-1].time) * 1000)
        run_id = store.known[Key("sweep")].run_id
        with tempfile.TemporaryDirectory() as scratch:
            for file in files:
                target = Path(scratch) / file
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(report / file, target)
            store.upload(run_id, Path(scratch), keys.REPORT_FOLDER)
        sweep = _edit(Key("sweep"), time)
        sweep.files[keys.LEADERBOARD_FILE] = json.dumps(table)
        sweep.tags[keys.TABLES] = json.dumps([{"path": keys.LEADERBOARD_FILE, "type": "table"}])
        sweep.tags[keys.NOTE] = description(
            rows, _opening(report / "summary.md"), store.experiment, store.sweep, run_id
        )
        sizes = [len({row[part] for row in rows}) for part in ("model", "task")]
        sweep.points += [
            Point(key=cell_metric(keys.TEST, _cell(row), *sizes), value=float(row["mean"]), time=time, step=0)
            for row in rows
            if row["mean"] is not None and len(rows) <= MOST_CELLS
        ]
        cells = [_cell_edit(store, row, time) for row in rows]
        store.write([sweep, *(edit for edit in cells if edit)], store.position)
    return f"{redact(uri).rstrip('/')}/{_page(store.experiment, run_id)}" if uri.startswith("http") else ""


def description(rows: Sequence[Row], opening: str, experiment: str, sweep: str, run_id: str) -> str:
    """Return the Markdown that MLflow's UI shows on the sweep's run: links, the report's opening, and the leaderboard."""
    page = _page(experiment, run_id)
    metric = rows[0]["metric"]
    views = {
        "Charts of the methods": ("cell", keys.TEST + metric),
        "Charts of the trials": ("trial", keys.best(metric)),
    }
    links = [f"[Report]({page}/artifacts/{keys.REPORT_FOLDER}/summary.html)"]
    links += [f"[{title}]({_search(experiment, sweep, *view)})" for title, view in views.items()]
    table = ["| " + " | ".join(_TABLE) + " |", "|" + " --- |" * len(_TABLE), *(_line(row) for row in rows)]
    while True:
        text = "\n\n".join(part for part in (" · ".join(links), opening, "\n".join(table)) if part)
        if len(text) <= MOST_CHARACTERS or len(table) <= 3:
            return text[:MOST_CHARACTERS]
        table = [*table[: len(table) // 2], "| ... |"]


def _edit(key: Key, time: int) -> Edit:
    return Edit(run=RunUpdates(key=key, name="", tags={}), start=time)


def _cell(row: Row) -> Cell:
    return Cell(model=row["model"], task=row["task"], method=row["method"])


def _cell_edit(store: Store, row: Row, time: int) -> Edit | None:
    """Return the changes of a cell's run; None if the cell has no run yet."""
    key = Key("cell", str(_cell(row)))
    if key not in store.known:
        return None
    edit = _edit(key, time)
    edit.tags |= {keys.VERDICT: row["verdict"], keys.CONFIGURATION: row["configuration"]}
    for column, template in METRICS.items():
        name, value = template.format(row["metric"]), row[column]
        if value is None and name in store.known[key].metrics:
            value = math.nan  # known before a search was resumed; MLflow cannot delete a metric
        if value is not None:
            edit.points.append(Point(key=name, value=float(value), time=time, step=0))
    return edit


def _opening(summary: Path) -> str:
    """Return the text of the report's summary before its second heading, without the first."""
    lines = summary.read_text(encoding="utf-8").split("\n")
    headings = [i for i, line in enumerate(lines) if line.startswith("#")]
    first, last = headings[0] + 1 if headings else 0, headings[1] if len(headings) > 1 else len(lines)
    return "\n".join(lines[first:last]).strip()[:3000]


def _line(row: Row) -> str:
    score = "–" if row["mean"] is None else f"{row['mean']:.2f}" + (f" ± {row['sd']:.2f}" if row["sd"] else "")
    p = "–" if row["p"] is None else "< 0.001" if row["p"] < 0.001 else f"{row['p']:.3f}"
    columns = (row["model"], row["task"], row["title"], f"{score} ({row['metric']})", row["n"], p, row["verdict"])
    return "| " + " | ".join(str(value).replace("|", "\\|") for value in (*columns, row["configuration"])) + " |"


def _page(experiment: str, run_id: str) -> str:
    """Return the path of a run's page in the UI."""
    return f"#/experiments/{experiment}/runs/{run_id}"


def _search(experiment: str, sweep: str, kind: str, metric: str) -> str:
    """Return the path of the UI's charts of a sweep's runs of one kind, the highest value of a metric first.

    Sorted by a metric, the UI shows the runs themselves; sorted by time, which is its default, their closed parents.
    """
    query = f"tags.`{keys.SWEEP}` = '{sweep}' and tags.`{keys.KIND}` = '{kind}'"
    order = f"orderByKey={quote(f'metrics.`{metric}`')}&orderByAsc=false"
    return f"#/experiments/{experiment}/runs?compareRunsMode=CHART&searchFilter={quote(query)}&{order}"
