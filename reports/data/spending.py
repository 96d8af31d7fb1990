"""Counts the trials by state, the epochs and the hours of training of each cell, separately for search and finals."""

from __future__ import annotations

import pandas as pd

from reports.data.store import StoredSweep
from reports.data.trial_table import by_cell
from search_spaces.language import Cell


def spending(sweep: StoredSweep) -> pd.DataFrame:
    """Return one row per cell of the manifest, with the columns of the report's `tables/budget.csv`."""
    groups = by_cell(sweep.manifest, sweep.trials)
    return pd.DataFrame([_spent(sweep, cell, trials) for cell, trials in groups.items()])


def _spent(sweep: StoredSweep, cell: Cell, trials: pd.DataFrame) -> dict[str, object]:
    """Return the row of one cell. Epochs and hours leave out trials whose results were taken from another sweep.

    "final_hours" includes the finals of former winners, which "finals" does not count.
    """
    search, finals = trials[trials["phase"] == "search"], trials[trials["phase"] == "final"]
    retrained = trials[trials["phase"] != "search"]
    states = search["state"].value_counts()
    return {
        "model": cell.model,
        "task": cell.task,
        "method": cell.method,
        "planned": sweep.manifest.budget.searches * sweep.manifest.planned_trials(cell.method),
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
    """Return the trials that this sweep trained itself instead of taking their results from another sweep."""
    return trials[~trials["cached"].astype(bool)]
