"""Reads the metrics that each run recorded after every epoch; MLflow's search for runs returns only their last values.

A database is read directly with one SQL query, because MLflow's client sends one query per run and metric, which takes ten
seconds for 2,000 trials. A tracking server is read through MLflow's client.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pandas as pd
from sqlalchemy import Boolean, column, create_engine, false, select, table
from sqlalchemy.exc import SQLAlchemyError

from reports.data.store_address import StoreError
from search_spaces import keys
from search_spaces.redaction import clean_line, redact

COLUMNS = ["run_id", "epoch", "score", "seconds"]
_METRICS = table("metrics", *map(column, ("run_uuid", "key", "value", "step", "timestamp")), column("is_nan", Boolean))
_TAGS = table("tags", *map(column, ("run_uuid", "key", "value")))


def epochs(tracking_uri: str, client: Any, runs: list[Any], sweep: str, scores: Iterable[str]) -> pd.DataFrame:
    """Return one row per run and epoch: run_id, epoch (from 1), score (percent points, validation split), seconds of that epoch.

    `scores`: the names of the tasks' scores. If a value was recorded twice for an epoch, the later one is kept; missing values
    are NaN. Raises StoreError if the database cannot be read.
    """
    served = tracking_uri.startswith(("http://", "https://"))
    # The column of each metric. A run has one task, hence one score; earlier versions called it by another name.
    columns = {keys.FORMER_SCORE: "score", **{keys.VALIDATION + score: "score" for score in scores}}
    columns[keys.SECONDS] = "seconds"
    found = _from_server(client, runs, columns) if served else _from_database(tracking_uri, sweep, columns)
    found = found[found["run_id"].isin([run.info.run_id for run in runs])]
    found = found.assign(metric=found["metric"].map(columns))
    found = found.drop_duplicates(["run_id", "metric", "epoch"], keep="last")
    wide = found.pivot(index=["run_id", "epoch"], columns="metric", values="value").reset_index()
    return wide.reindex(columns=COLUMNS).rename_axis(columns=None)


def _from_database(tracking_uri: str, sweep: str, names: Collection[str]) -> pd.DataFrame:
    """Return one row per recorded value (run_id, metric, epoch, value), in the order of recording within an epoch.

    Raises StoreError if the database cannot be read.
    """
    one, tag = _METRICS.c, _TAGS.c
    of_sweep = select(tag.run_uuid).where(tag.key == keys.SWEEP, tag.value == sweep)
    query = (
        select(one.run_uuid.label("run_id"), one.key.label("metric"), one.step.label("epoch"), one.value)
        .where(one.key.in_(names), one.is_nan == false(), one.run_uuid.in_(of_sweep))
        .order_by(one.run_uuid, one.step, one.timestamp, one.value)
    )
    engine = create_engine(tracking_uri)
    try:
        return pd.read_sql(query, engine)
    except SQLAlchemyError as error:
        raise StoreError(f"{redact(tracking_uri)}: {clean_line(error)[:300]}") from None
    finally:
        engine.dispose()


def _from_server(client: Any, runs: list[Any], names: Collection[str]) -> pd.DataFrame:
    """Return the same columns as `_from_database`, with a request for each of these metrics that a run has."""

    def one(run_id: str, name: str) -> list[tuple[str, str, int, float]]:
        return [(run_id, name, point.step, point.value) for point in client.get_metric_history(run_id, name)]

    asked = [(run.info.run_id, name) for run in runs for name in names if name in run.data.metrics]
    with ThreadPoolExecutor(max_workers=4) as pool:
        found = [row for rows in pool.map(lambda pair: one(*pair), asked) for row in rows]
    return pd.DataFrame(found, columns=["run_id", "metric", "epoch", "value"])
