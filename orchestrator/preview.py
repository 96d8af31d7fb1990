"""What `--plan` and `--list` print. Text in, text out."""

from __future__ import annotations

import math
from pathlib import Path

from orchestrator.ledger import read
from orchestrator.plan import Plan
from search_spaces.language import Choice, Dimension, MethodEntry, grid_size
from search_spaces.loading import docstring, names
from search_spaces.records import END_STATES
from trainables import models
from trainables.counting import build, count
from trainables.methods import METHODS
from trainables.tasks import TASKS


def plan_text(plan: Plan, folder: Path) -> str:
    """Cells, trials, seeds, parameters, and what the sweep's ledger already holds."""
    space, budget = plan.space, plan.space.budget
    seeds = f" on {budget.search_seeds} seeds each" if budget.search_seeds > 1 else ""
    asha = f"ASHA rungs from epoch {budget.grace}, factor {budget.reduction}"
    lines = [
        f"{space.name}: {space.title or 'untitled'}",
        f"  {len(space.models)} models x {len(space.tasks)} tasks x {len(space.methods)} methods = {len(space.cells)} cells",
        f"  {plan.trials} trials: at most {budget.trials} tried per cell{seeds}, its winner re-trained on "
        f"{budget.final_seeds} fresh seeds",
        f"  at most {space.recipe.epochs} epochs each, patience {space.recipe.patience}; at most {budget.in_flight} trials of a "
        f"cell at once; {asha if budget.grace < space.recipe.epochs else 'no ASHA rung before the last epoch'}",
        "",
        f"  models   {', '.join(f'{models.title(m)} ({m})' for m in space.models)}",
        f"  tasks    {', '.join(f'{t.title} ({t.metrics[0]}, test: {t.test_source})' for t in plan.tasks.values())}",
        "",
    ]
    lines += _table(
        [
            ["method", "searched", "points", "tries", "trained parameters (2 classes)"],
            *(_row(plan, entry) for entry in space.methods),
        ]
    )
    if plan.stamp:
        lines += ["", "  reduced: " + "; ".join(plan.stamp)]
    return "\n".join([*lines, "", "  " + _done(plan, folder)])


def list_text(kind: str) -> str:
    """Spaces, methods, tasks and models by name, or one of them; methods alone with everything known about them."""
    if kind == "methods":
        return "\n".join(_table(_methods()))
    blocks = {
        "spaces": [[name, docstring(name)] for name in names()],
        "methods": [[name, f"{method.title} ({method.paper})"] for name, method in METHODS.items()],
        "tasks": [[task.name, f"{task.title}: {task.metrics[0]}, {task.source}"] for task in TASKS.values()],
        "models": [[name, models.title(name)] for name in (*models.KNOWN_CONFIGS, "minilm")],
    }
    shown = blocks if kind == "all" else {kind: blocks[kind]}
    return "\n\n".join("\n".join([title, *_table(rows)]) for title, rows in shown.items())


def _methods() -> list[list[str]]:
    shape = models.shape_of(models.KNOWN_CONFIGS["bert-base-uncased"])
    rows = [["method", "family", "paper", "searched", "trained on BERT-base", "backbone"]]
    for name, kind in METHODS.items():
        counts = count(build(name, {}, shape), shape, outputs=2)
        searched = " ".join(f"{key} {_dimension(d)}" for key, d in kind.search.items())
        trained = f"{counts.trained:,} ({100 * counts.trained / counts.total:.3g} %)"
        rows.append([name, kind.family, kind.paper, searched, trained, "shared" if kind.shares_backbone else "its own"])
    return rows


def _row(plan: Plan, entry: MethodEntry) -> list[str]:
    dimensions = plan.space.dimensions_of(entry)
    size = grid_size(dimensions)
    searched = " ".join(f"{name} {_dimension(d)}" for name, d in dimensions.items())
    points = "TPE" if math.isinf(size) else f"{'TPE' if size > plan.space.budget.trials else 'all'} of {size:g}"
    return [entry.label, searched, points, str(plan.tries(entry)), _parameters(plan, entry)]


def _parameters(plan: Plan, entry: MethodEntry) -> str:
    parts = []
    for name, shape in plan.shapes.items():
        if shape is None:
            parts.append(f"{name}: unknown until downloaded")
            continue
        low, high = plan.counts(entry, shape)
        spread = f"{low.trained:,}" if low == high else f"{low.trained:,} to {high.trained:,}"
        parts.append(f"{models.title(name)} {spread} ({100 * high.trained / high.total:.2f} %)")
    return "; ".join(parts)


def _dimension(dimension: Dimension) -> str:
    if isinstance(dimension, Choice):
        return "{" + ", ".join(map(str, dimension.values)) + "}"
    return f"[{dimension.low:g}, {dimension.high:g}{' log' if dimension.log else ''}]"


def _done(plan: Plan, folder: Path) -> str:
    if not (folder / "ledger.jsonl").is_file():
        return f"nothing of it has run yet ({folder})"
    ended = [record["outcome"]["state"] for record in read(folder) if record["event"] == "ended"]
    states = ", ".join(f"{ended.count(state)} {state}" for state in END_STATES if state in ended)
    return f"already ended: {len(ended)} of {plan.trials} trials ({states or 'none'}) in {folder}"


def _table(rows: list[list[str]]) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
