"""The table of cells on the progress display, as lines of text that fit a given width and height."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich.cells import cell_len, set_cell_size
from rich.text import Text

from orchestrator.search.snapshots import CellSnapshot, RunningTrial
from orchestrator.search.trial_names import TrialNames
from search_spaces.redaction import printable

GAP = 2
# A name is not cut below this many characters, unless it is shorter.
SHORTEST = 8
# Free width from which the running configurations stand in the row of their cell, and not in a line below it.
INLINE = 34
PHASES = {"search": "searching", "finals": "in finals", "finished": "finished"}


@dataclass(frozen=True)
class TextColumn:
    """One column. A column of names is cut in the middle where the table is too wide, the others hold numbers."""

    heading: str
    values: Sequence[str]
    is_name: bool = False

    @property
    def width(self) -> int:
        return max(cell_len(text) for text in (self.heading, *self.values))


def cell_lines(
    found: Sequence[CellSnapshot],
    names: TrialNames,
    constants: Mapping[tuple[str, int], float],
    width: int,
    height: int,
) -> list[Text]:
    """Return the table in at most `height` lines (at least 3) of at most `width` characters.

    If not all cells fit, those that run come first, then those that are not finished, and the last line counts the others.
    `constants`: validation scores of constant predictions in percent points, by task and number of the search.
    """
    columns = _columns(found, names, constants)
    widths = _widths(columns, width)
    free = width - sum(widths) - GAP * len(widths)
    running = [_running(cell, names) for cell in found]
    inline = free >= max(INLINE, *map(cell_len, running))
    blocks = [_block(columns, widths, i, text, inline) for i, text in enumerate(running)]
    headings = [column.heading for column in columns] + ["running"] * (inline and any(running))
    heading = Text(_joined(headings, columns, widths), style="bold")
    shown = list(range(len(found)))
    if 1 + sum(map(len, blocks)) > height:
        order = sorted(shown, key=lambda i: (not found[i].running, found[i].phase == "finished", i))
        shown, num_lines = [], 2
        for i in order:
            num_lines += len(blocks[i])
            if num_lines > height:
                break
            shown.append(i)
    hidden = [cell for i, cell in enumerate(found) if i not in set(shown)]
    lines = [heading, *(line for i in shown for line in blocks[i]), *([_rest(hidden)] if hidden else [])]
    for line in lines:
        line.truncate(width, overflow="ellipsis")
    return lines


def _columns(
    found: Sequence[CellSnapshot], names: TrialNames, constants: Mapping[tuple[str, int], float]
) -> list[TextColumn]:
    """Return the columns; a model, a search or failures have one only if there are several, or any."""

    def score(value: float | None) -> str:
        return "-" if value is None else f"{value:.2f}"

    columns = [
        TextColumn("task", [printable(cell.cell.task) for cell in found], is_name=True),
        TextColumn("method", [printable(cell.cell.method) for cell in found], is_name=True),
        TextColumn("phase", [cell.phase for cell in found]),
        TextColumn("ended", [f"{cell.num_ended}/{cell.total}" for cell in found]),
        TextColumn("best", [score(cell.best) for cell in found]),
    ]
    if names.models > 1:
        columns.insert(0, TextColumn("model", _short([printable(cell.cell.model) for cell in found]), is_name=True))
    if names.searches > 1:
        columns.insert(-3, TextColumn("no.", [str(cell.search + 1) for cell in found]))
    if constants:
        columns.append(TextColumn("constant", [score(constants.get((cell.cell.task, cell.search))) for cell in found]))
    if any(cell.failed for cell in found):
        columns.append(TextColumn("failed", [str(cell.failed) for cell in found]))
    return columns


def _widths(columns: Sequence[TextColumn], width: int) -> list[int]:
    """Return the columns' widths; the widest names are cut until the table is at most `width` characters wide."""
    widths = [column.width for column in columns]
    while sum(widths) + GAP * (len(widths) - 1) > width:
        longest = max((w, i) for i, w in enumerate(widths) if columns[i].is_name)
        if longest[0] <= SHORTEST:
            break
        widths[longest[1]] -= 1
    return widths


def _block(columns: Sequence[TextColumn], widths: Sequence[int], row: int, running: str, inline: bool) -> list[Text]:
    """Return the lines of one cell: its row and, if they do not stand in it, one more with its running configurations."""
    values = [column.values[row] for column in columns]
    line = Text(_joined(values + [running] * inline, columns, widths))
    if not running:
        line.stylize("dim")
    return [line] if inline or not running else [line, Text(f"    {running}", style="cyan")]


def _joined(values: Sequence[str], columns: Sequence[TextColumn], widths: Sequence[int]) -> str:
    """Return the values under each other's columns: names to the left, cut in their middle, numbers to the right."""
    cells = []
    for value, column, width in zip(values, columns, widths, strict=False):
        if column.is_name or column.heading == "phase":
            cells.append(set_cell_size(shortened(value, width), width))
        else:
            cells.append(" " * (width - cell_len(value)) + value)
    return (" " * GAP).join([*cells, *values[len(widths) :]]).rstrip()


def _short(models: Sequence[str]) -> list[str]:
    """Return the models without owners or folders, unless two would then have one name."""
    last = [name.rstrip("/").rpartition("/")[2] for name in models]
    return last if len(set(last)) == len(set(models)) else list(models)


def shortened(name: str, width: int) -> str:
    """Return the name in at most `width` characters, with those in the middle left out."""
    if cell_len(name) <= width:
        return name
    tail = (width - 1) // 2
    return set_cell_size(name, width - 1 - tail) + "…" + name[len(name) - tail :]


def _running(cell: CellSnapshot, names: TrialNames) -> str:
    """Return the configuration and the epoch of the cell's first running trial, and how many more there are."""
    if not cell.running:
        return ""
    more = f" (+{len(cell.running) - 1} more)" if len(cell.running) > 1 else ""
    return printable(running_text(cell.running[0], names)) + more


def running_text(running: RunningTrial, names: TrialNames) -> str:
    """Return configuration and epoch, such as "lr=1e-3 r=16, epoch 2 of 3"."""
    trial = running.trial
    epoch = min(running.epochs + 1, trial.recipe.epochs)
    return f"{names.configuration(trial)}, epoch {epoch} of {trial.recipe.epochs}"


def _rest(hidden: Sequence[CellSnapshot]) -> Text:
    """Return the last line for cells that are not shown."""
    phases = Counter("running" if cell.running else PHASES[cell.phase] for cell in hidden)
    told = ", ".join(f"{number} {phase}" for phase, number in phases.items())
    return Text(f"{len(hidden)} more cell{'s' * (len(hidden) != 1)}: {told}", style="italic")
