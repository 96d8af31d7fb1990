"""Builds the report of one sweep: summary.md, summary.html, figures, and tables as CSV and LaTeX.

All files are made in a temporary folder and moved to their place at the end, so that an error leaves an older report unchanged.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from reports.data.store import read
from reports.page.document import page
from reports.plots import drawing
from reports.render.csv_files import write_csv
from reports.render.markdown import paragraphs
from reports.sections import SECTIONS, leaderboard, paper_table
from reports.sections.paper_table import LatexOptions
from reports.sections.section import Section
from reports.statistics.analysis import AnalyzedSweep, analyze

SUMMARY = "summary.md"
PAGE = "summary.html"
DEFAULT = LatexOptions()


def build(
    tracking_uri: str, sweep: str, out: Path, latex: LatexOptions = DEFAULT, file_list: Path | None = None
) -> Path:
    """Write the report of the sweep with this id into the folder `out` and return the path of its summary.md.

    `latex`: what the table of results for LaTeX shows. The names of the report's files, relative to `out`, are written to
    `file_list`, one a line. Raises ValueError for an unknown sweep, for LaTeX options that do not fit it and for results that
    were selected on the split that they report, StoreError if the store cannot be read. Files in `out` that do not belong to the
    report are not changed.
    """
    found = analyze(read(tracking_uri, sweep))
    out = Path(out).resolve()
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as scratch:
        render(found, Path(scratch), latex)
        files = _replace(Path(scratch), out)
    if file_list:
        file_list.write_text("".join(f"{file}\n" for file in files), encoding="utf-8")
    return out / SUMMARY


def render(sweep: AnalyzedSweep, folder: Path, latex: LatexOptions = DEFAULT) -> None:
    """Write all files of the report into an empty folder.

    Raises ValueError for results that were selected on the split that they report, and for LaTeX options that do not fit.
    """
    for name in ("tables", "figures"):
        (folder / name).mkdir()
    write_tables(sweep, folder / "tables", latex)
    drawing.write(sweep, folder / "figures")
    (folder / leaderboard.FILE).write_text(
        leaderboard.as_json(leaderboard.leaderboard(sweep)), encoding="utf-8", newline="\n"
    )
    text = summary(sweep)
    (folder / SUMMARY).write_text(text, encoding="utf-8", newline="\n")
    drawings = {path.stem: path.read_text(encoding="utf-8") for path in sorted((folder / "figures").glob("*.svg"))}
    (folder / PAGE).write_text(page(sweep.manifest.title, text, drawings), encoding="utf-8", newline="\n")


def summary(sweep: AnalyzedSweep) -> str:
    """Return the content of summary.md."""
    return paragraphs(*(section.text(sweep) for section in SECTIONS.values() if section.text is not None)) + "\n"


def write_tables(sweep: AnalyzedSweep, folder: Path, latex: LatexOptions = DEFAULT) -> None:
    """Write all CSV and LaTeX files; raises what `render` raises."""
    (folder / "results.tex").write_text(paper_table.latex(sweep, latex), encoding="utf-8", newline="\n")
    for name, section in SECTIONS.items():
        _write_section(name, section, sweep, folder)


def _write_section(name: str, section: Section, sweep: AnalyzedSweep, folder: Path) -> None:
    """Write the CSV and LaTeX files of one section.

    Raises ValueError if the section shows results that were selected on the split that they report.
    """
    if section.provenance is not None:
        section.provenance(sweep).check(name)
    rows = section.rows(sweep) if section.rows is not None else None
    if rows is not None:
        write_csv(rows, folder / f"{name}.csv")
    for table_name, table in (section.tables(sweep) if section.tables else {}).items():
        path = folder / f"{table_name}.tex"
        path.write_text(table.latex(table_name), encoding="utf-8", newline="\n")


def _replace(scratch: Path, out: Path) -> list[Path]:
    """Move the new files to `out` one by one, summary.md last, and return their names relative to it.

    The folder is not replaced, as it may contain other files.
    """
    files = sorted(path.relative_to(scratch) for path in scratch.rglob("*") if path.is_file())
    for file in sorted(files, key=lambda file: file.name == SUMMARY):
        (out / file).parent.mkdir(parents=True, exist_ok=True)
        os.replace(scratch / file, out / file)
    return files
