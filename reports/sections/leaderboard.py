"""The answer as one table for other programs: a row per cell, the best of each model and task first.

The driver adds it to MLflow, so that the numbers there are those of the report.
"""

from __future__ import annotations

import math

import pandas as pd

from reports.sections.section import results_provenance
from reports.sections.winners import describe, won
from reports.statistics.analysis import AnalyzedSweep
from search_spaces.language import Cell

FILE = "leaderboard.json"


def leaderboard(sweep: AnalyzedSweep) -> pd.DataFrame:
    """Return one row per cell; scores and differences are in percent points, and None where they are not known yet.

    mean, sd, n: of the scores on the test split; n counts finals. low, high: 95 % interval of the mean. behind, p: difference
    to the best method of the model and task, and its corrected p-value. configuration: the winner's searched hyperparameters; of
    several searches, in their order. validation: the winner's validation score, with several searches that of the best.
    trained, trained_percent: parameters that the optimizer updates, and their share of the pretrained model's.
    """
    results_provenance(sweep).check("leaderboard")
    rows = pd.DataFrame([_row(sweep, cell) for cell in sweep.manifest.cells])
    places = {name: {key: i for i, key in enumerate(getattr(sweep.manifest, name + "s"))} for name in ("model", "task")}
    order = pd.DataFrame({name: rows[name].map(places[name]) for name in places})
    order["mean"] = -rows["mean"].astype(float)
    return rows.loc[order.sort_values(list(order.columns), kind="stable").index].reset_index(drop=True)


def as_json(table: pd.DataFrame) -> str:
    """Return the table in the form that `mlflow.log_table` writes."""
    return str(table.to_json(orient="split", index=False, double_precision=15))


def _row(sweep: AnalyzedSweep, cell: Cell) -> dict[str, object]:
    manifest, result, standing = sweep.manifest, sweep.results[cell], sweep.standings.get(cell)
    found = [won(sweep, cell, number) for number in range(manifest.budget.searches)]
    winners = [winner for winner in found if winner is not None]
    low, high = standing.interval if standing and standing.interval else (None, None)
    total = manifest.models[cell.model].total
    return {
        "model": cell.model,
        "task": cell.task,
        "method": cell.method,
        "title": manifest.methods[cell.method].title,
        "metric": manifest.tasks[cell.task].score,
        "mean": result.mean,
        "sd": result.std,
        "n": len(result.scores),
        "low": low,
        "high": high,
        "behind": standing.gap.value if standing and standing.gap else None,
        "p": standing.p_value if standing else None,
        "verdict": standing.verdict if standing else result.progress,
        "configuration": " | ".join(describe(sweep, cell, winner) for winner in winners),
        "validation": max((float(winner["best_score"]) for winner in winners), default=math.nan),
        "trained": result.counts.trained if result.counts else None,
        "trained_percent": 100 * result.counts.trained / total if result.counts else None,
        "constant_prediction": manifest.tasks[cell.task].majority,
    }
