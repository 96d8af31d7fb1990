"""Adds an exported model to MLflow: a logged model with a signature, an output of the run of the final that was exported.

`mlflow.pyfunc.load_model` loads it through `orchestrator.export.mlflow_loader`; it takes a table with the task's text columns.
Nothing is pickled: the model is the folder that `peft-sweep export` wrote, with MLflow's description beside it.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

from orchestrator.exit_codes import EnvironmentUnfit
from orchestrator.export.record import ExportRecord, read
from orchestrator.tracking.mlflow_store import connect, environment
from search_spaces import keys
from search_spaces.redaction import clean_line, redact

LOADER = "orchestrator.export.mlflow_loader"


def log_model(uri: str, folder: Path) -> tuple[str, bool]:
    """Add the exported model in `folder` to the store. Return its MLflow id, and whether it was there already.

    Raises ValueError if the folder holds no export or the store has no run of the final that was exported, Damaged if files of
    the export are damaged, EnvironmentUnfit if the store cannot be used.
    """
    record = read(folder)
    with environment():
        try:
            client = connect(uri)
            run = _run_of(client, record.trial.id)
            if run is None:
                raise ValueError(
                    f"{redact(uri)} has no run of the final {record.trial.id} that {folder} was exported from; give the store "
                    "of its sweep with --tracking-uri"
                )
            return _log(client, run, record, folder)
        except (ValueError, EnvironmentUnfit):
            raise
        except Exception as error:  # whatever error MLflow has
            raise EnvironmentUnfit(f"{redact(uri)}: {clean_line(error)[:500]}") from None


def _run_of(client: Any, trial_id: str) -> Any | None:
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    found = client.search_runs(experiments, f"tags.`{keys.TRIAL}` = '{trial_id}' and tags.`{keys.KIND}` = 'trial'")
    return found[0] if found else None


def _log(client: Any, run: Any, record: ExportRecord, folder: Path) -> tuple[str, bool]:
    from mlflow.entities import LoggedModelOutput, Metric

    where = f"source_run_id = '{run.info.run_id}'"
    for known in client.search_logged_models([run.info.experiment_id], where):
        if known.tags.get(keys.DIGEST) == record.digest and str(known.status) == "READY":
            return known.model_id, True
    cell = record.trial.cell
    model = client.create_logged_model(
        run.info.experiment_id,
        name=f"{cell.model}-{cell.task}-{cell.method}".replace("/", "-"),
        source_run_id=run.info.run_id,
        params={name: value for name, value in run.data.params.items() if value},
        tags={keys.DIGEST: record.digest, keys.CELL: str(cell), keys.TRIAL: record.trial.id},
        model_type=record.kind,
    )
    with tempfile.TemporaryDirectory() as scratch:
        _describe(Path(scratch), record, folder, run.info.run_id, model.model_id)
        client.log_model_artifacts(model.model_id, scratch)
    tested = {name: value for name, value in run.data.metrics.items() if name.startswith(keys.TEST)}
    client.log_batch(
        run.info.run_id,
        [Metric(name, value, run.info.end_time, 0, model_id=model.model_id) for name, value in tested.items()],
    )
    client.log_outputs(run.info.run_id, [LoggedModelOutput(model.model_id, step=0)])
    client.finalize_logged_model(model.model_id, "READY")
    return model.model_id, False


def _describe(target: Path, record: ExportRecord, folder: Path, run_id: str, model_id: str) -> None:
    """Write MLflow's description of the exported model, with a copy of its folder, into the folder `target`."""
    from mlflow import pyfunc
    from mlflow.models import Model, ModelSignature
    from mlflow.types import ColSpec, Schema

    shutil.copytree(folder, target / "model")
    classes = record.task.classes
    shares = [ColSpec("double", f"probability_{name}") for name in classes]
    outputs: list[Any] = [ColSpec("string", "label"), *shares] if classes else [ColSpec("double", "value")]
    inputs: list[Any] = [ColSpec("string", name) for name in record.columns]
    signature = ModelSignature(Schema(inputs), Schema(outputs))
    described = Model(run_id=run_id, model_id=model_id, signature=signature)
    pyfunc.add_to_model(described, loader_module=LOADER, data="model")
    described.save(str(target / "MLmodel"))
