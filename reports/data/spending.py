"""What each cell of a sweep has spent: numbers of trials by state, epochs and hours, search and finals apart."""

from __future__ import annotations

import pandas as pd

from reports.data.store import StoredSweep
from reports.data.trial_table import by_cell
from search_spaces.language import Cell


def spending(sweep: StoredSweep) -> pd.DataFrame:
    """One row per cell of the manifest; the columns are those of tables/budget.csv."""
    groups = by_cell(sweep.manifest, sweep.trials)
    return pd.DataFrame([_spent(sweep, cell, trials) for cell, trials in groups.items()])


def _spent(sweep: StoredSweep, cell: Cell, trials: pd.DataFrame) -> dict[str, object]:
    search, finals = trials[trials["phase"] == "search"], trials[trials["phase"] == "final"]
    retrained = trials[trials["phase"] != "search"]
    states = search["state"].value_counts()
    return {
        "model": cell.model,
        "task": cell.task,
        "method": cell.method,
        "planned": sweep.manifest.planned_trials(cell.method),
        "tried": len(search),
        "done": int(states.get("DONE", 0)),
        "stopped": int(states.get("STOPPED", 0)),
        "failed": int(states.get("FAILED", 0)),
        "invalid": int(states.get("INVALID", 0)),
        "diverged": int(search["diverged"].sum()),
        "cached": int(trials["cached"].sum()),
        "epochs": int(_not_cached(trials)["epochs"].sum()),
        "search_hours": float(_not_cached(search)["seconds"].sum()) / 3600,
        "finals": int((finals["state"] == "DONE").sum()),
        "finals_failed": int(finals["state"].isin(("FAILED", "INVALID")).sum()),
        "finals_collapsed": int(finals["collapsed"].sum()),
        "final_hours": float(_not_cached(retrained)["seconds"].sum()) / 3600,
    }


def _not_cached(trials: pd.DataFrame) -> pd.DataFrame:
    """Trials that were trained by this sweep, not taken from an earlier one."""
    return trials[~trials["cached"].astype(bool)]
