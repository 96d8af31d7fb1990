"""What a search tried: its trials as configurations, each with the mean over its seeds. With one seed they are the same."""

from __future__ import annotations

from functools import lru_cache

import pandas as pd

from reports.data.store import StoredSweep
from reports.data.trial_table import PARAM
from search_spaces.records import BUDGET, END_STATES

# What decides over a configuration, first of all a seed that has not ended.
_WORST = ("RUNNING", "INVALID", "FAILED", "STOPPED", "DONE")


@lru_cache(maxsize=2)
def tried(sweep: StoredSweep) -> pd.DataFrame:
    """One row per configuration of each cell's search, not to be changed; columns as in `reports/data/trial_table.py`, and `seeds`, the
    ids of its trials.

    A configuration has the trial and the run of its first seed that can win, the mean best score of all its seeds (NaN when
    one of them has none, percent points, validation), and the worst of their states: RUNNING until all have ended.
    """
    trials = sweep.trials
    search = trials[trials["phase"] == "search"]
    if sweep.manifest.budget.search_seeds == 1:
        return search.assign(seeds=[(trial,) for trial in search["trial"]])
    settings = [name for name in search if str(name).startswith(PARAM) and name != PARAM + "seed"]
    groups = search.groupby(["cell", *settings], sort=False, dropna=False)
    rows = [_row(sweep.manifest.budget.search_seeds, seeds) for _, seeds in groups]
    return pd.DataFrame(rows, columns=[*search.columns, "seeds"])


def can_win(rows: pd.DataFrame) -> pd.Series:
    """Which trials or configurations may be chosen: those that ran to their end, or until a time budget stopped them."""
    return (rows["state"] == "DONE") | (rows["reason"] == BUDGET)


def winning_trials(sweep: StoredSweep) -> set[str]:
    """Ids of all trials of the configurations that won."""
    table = tried(sweep)
    won = table[table["trial"].isin(set(sweep.winners.values()))]
    return {trial for seeds in won["seeds"] for trial in seeds}


def _row(planned: int, seeds: pd.DataFrame) -> dict[str, object]:
    numbers = pd.to_numeric(seeds[PARAM + "seed"], errors="coerce") if PARAM + "seed" in seeds else seeds["trial"]
    seeds = seeds.loc[numbers.sort_values(kind="stable").index]
    done = seeds[can_win(seeds)]
    states = [state if state in END_STATES else "RUNNING" for state in seeds["state"]]
    if len(seeds) < planned:
        states.append("RUNNING")
    means = {name: seeds[name].mean(skipna=False) for name in ("best_score", "best_epoch", "epochs")}
    first = (done if len(done) else seeds).iloc[0]
    return {**first.to_dict(), **means, "state": min(states, key=_WORST.index), "seeds": tuple(seeds["trial"])}
