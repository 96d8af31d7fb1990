"""Groups the trials of each search by configuration: one row per configuration, with its scores averaged over seeds."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from reports.data.store import StoredSweep
from reports.data.trial_table import PARAM
from search_spaces.records import BUDGET, END_STATES

# A configuration has the first of these states that any of its trials has.
_STATE_ORDER = ("RUNNING", "INVALID", "FAILED", "STOPPED", "DONE")


def configurations(sweep: StoredSweep) -> pd.DataFrame:
    """Return one row per configuration of each cell's search.

    The columns are those of `reports/data/trial_table.py` and `seeds`, the ids of the configuration's trials by seed.
    `best_score` (percent points, validation split), `best_epoch` and `epochs` are means over seeds, NaN if any seed lacks the
    value. `state` is RUNNING until all its trials have ended. All other columns, `trial` and `run_id` included, are those of the
    first seed that can win (`can_win`), or of the first seed if none can.
    """
    trials = sweep.trials
    search = trials[trials["phase"] == "search"]
    if sweep.manifest.budget.search_seeds == 1:
        return search.assign(seeds=[(trial,) for trial in search["trial"]])
    settings = [name for name in search if str(name).startswith(PARAM) and name != PARAM + "seed"]
    groups = search.groupby(["cell", "search", *settings], sort=False, dropna=False)
    rows = [_row(sweep.manifest.budget.search_seeds, seeds) for _, seeds in groups]
    return pd.DataFrame(rows, columns=[*search.columns, "seeds"])


def can_win(rows: pd.DataFrame) -> pd.Series:
    """Return for each row whether it can be its cell's winner: its state is DONE, or a time budget stopped it."""
    return (rows["state"] == "DONE") | (rows["reason"] == BUDGET)


def winning_trials(configurations: pd.DataFrame, winners: Mapping[tuple[str, int], str]) -> set[str]:
    """Return the ids of all trials, one per seed, of the winning configurations.

    `configurations` is the table of the function of that name; `winners` maps a cell and the number of
    its search to the id of the winning trial.
    """
    won = configurations[configurations["trial"].isin(set(winners.values()))]
    return {trial for seeds in won["seeds"] for trial in seeds}


def _row(planned: int, seeds: pd.DataFrame) -> dict[str, object]:
    """Return the row of one configuration from the rows of its trials; `planned` is the number of seeds it will be trained on."""
    numbers = pd.to_numeric(seeds[PARAM + "seed"], errors="coerce") if PARAM + "seed" in seeds else seeds["trial"]
    seeds = seeds.loc[numbers.sort_values(kind="stable").index]
    done = seeds[can_win(seeds)]
    states = [state if state in END_STATES else "RUNNING" for state in seeds["state"]]
    if len(seeds) < planned:
        states.append("RUNNING")
    means = {name: seeds[name].mean(skipna=False) for name in ("best_score", "best_epoch", "epochs")}
    first = (done if len(done) else seeds).iloc[0]
    return {**first.to_dict(), **means, "state": min(states, key=_STATE_ORDER.index), "seeds": tuple(seeds["trial"])}
