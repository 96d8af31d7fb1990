"""Drives one sweep from a checked plan to its report: prepare, open the ledger, run Tune, track, report."""

from __future__ import annotations

import json
import logging
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.logging import RichHandler

from orchestrator import exit_codes
from orchestrator.execution.checkpoint_retention import CheckpointRetention
from orchestrator.execution.cluster import cluster, device_name, environment, watched
from orchestrator.execution.concurrency import trials_per_device
from orchestrator.execution.progress import ProgressDisplay, log_records
from orchestrator.ledger import Ledger, write_atomic
from orchestrator.planning.plan import Plan
from orchestrator.planning.sweep_manifest import fingerprints, make_manifest, sweep_id
from orchestrator.run_options import RunOptions
from orchestrator.search.result_cache import ResultCache
from orchestrator.search.sweep import Sweep
from orchestrator.search.time_budget import TimeBudget, stopwatch
from orchestrator.tracking.tracker import Tracker
from search_spaces.language import TRAINING, Cell, Scalar, task_name
from search_spaces.records import Counts, Phase, Trial
from search_spaces.tracking_uri import redact
from trainables.backbone.models import Model, resolve
from trainables.tasks.task_data import Loaded
from trainables.tasks.task_loading import load
from trainables.tasks.tokens import prepare, read
from trainables.training.parameter_counts import build, count

log = logging.getLogger(__name__)

MANIFEST = "sweep.json"
# Raise it when the ledger's records change their meaning.
FORMAT = 1
# How long the end of a sweep waits for a tracking store that takes nothing, in seconds.
DELIVERY = 120.0


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """Everything that trials need, on this machine: models, examples, and token files by (model, task)."""

    models: dict[str, Model]
    tasks: dict[str, Loaded]
    tokens: dict[tuple[str, str], Path]


def drive(plan: Plan, options: RunOptions) -> int:
    """Run the sweep; returns the exit code. Raises what `run.main` turns into one."""
    clock = stopwatch()
    console = Console(stderr=True)
    set_up_logging(console)
    found = {name: resolve(name) for name in plan.space.models}
    loaded = _load_tasks(plan, options)
    out = options.out.absolute()
    folder = out / sweep_id(plan.space)
    with closing(Ledger.open(folder)) as ledger:
        manifest = make_manifest(plan, found, loaded, options.command, device_name(options.gpus))
        check_unchanged(ledger.records, manifest, folder)
        prepared = _prepare(plan, found, loaded, out)
        _write_state(folder, manifest, loaded)
        uri = options.tracking_uri or f"sqlite:///{out / 'mlflow.db'}"
        tracker = Tracker(uri, out / "mlflow-artifacts", folder, list(ledger.records))
        tracker.start()
        allowance = TimeBudget(options.budget, ledger.records, clock) if options.budget else None

        def notify(records: Sequence[dict[str, Any]]) -> None:
            tracker.put(records)
            if allowance:
                allowance.durations.note(records)
            log_records(records)

        def record(event: Mapping[str, Any]) -> None:
            notify(ledger.append(event))

        record({"event": "sweep", "format": FORMAT, "manifest": manifest})
        sweep = Sweep(
            plan.space, ledger, ResultCache(out, folder), maker(plan, prepared), counter(plan, prepared), notify
        )
        log.info(
            "sweep %s in %s; MLflow: %s; stop with Ctrl-C, continue with: %s",
            folder.name,
            folder,
            redact(uri),
            options.command,
        )
        if sweep.curtailed and (allowance is None or allowance.seconds > sweep.curtailed["allowed"]):
            sweep.extend()
        code = _verdict(sweep) if sweep.finished else _run(sweep, prepared, options, folder, console, record, allowance)
        if sweep.finished:
            sweep.close()
        delivered = tracker.drain(DELIVERY)
        tracker.close()
    return _finish(sweep, code, delivered, folder, uri, options)


def maker(plan: Plan, prepared: Prepared) -> Callable[[Cell, dict[str, Scalar], int, Phase], Trial]:
    """Builds the trial of a configuration: the method's fixed settings, the searched ones, and what identifies its inputs."""

    def make(cell: Cell, hyperparameters: dict[str, Scalar], seed: int, phase: Phase) -> Trial:
        entry = plan.space.entry(cell.method)
        values: dict[str, Any] = {**plan.space.values_of(entry), **hyperparameters}
        settings = {name: value for name, value in values.items() if name not in TRAINING}
        recipe = plan.space.recipe
        return Trial(
            cell=cell,
            method=entry.name,
            settings=settings,
            lr=float(values["lr"]),
            batch_size=int(values["batch_size"]),
            seed=seed,
            phase=phase,
            recipe=replace(recipe, epochs=int(values.get("epochs", recipe.epochs))),
            weights=prepared.models[cell.model].fingerprint,
            split=prepared.tasks[cell.task].fingerprint,
            ablated=entry.ablated and phase == "final",
        )

    return make


def counter(plan: Plan, prepared: Prepared) -> Callable[[Trial], Counts]:
    """Trainable parameters of a trial, by formula."""

    def counts(trial: Trial) -> Counts:
        shape = prepared.models[trial.cell.model].shape
        return count(build(trial.method, trial.settings, shape), shape, prepared.tasks[trial.cell.task].task.outputs)

    return counts


def check_unchanged(records: Sequence[dict[str, Any]], manifest: dict[str, Any], folder: Path) -> None:
    """Raise ValueError when models, data or the version of this program are not those that this sweep began with."""
    earlier = [record for record in records if record["event"] == "sweep"]
    if not earlier:
        return
    if earlier[0].get("format") != FORMAT:
        raise ValueError(
            f"{folder}: another version of this program wrote its ledger; continue with that version, or start anew with "
            f"another --out"
        )
    before, now = fingerprints(earlier[0]["manifest"]), fingerprints(manifest)
    changed = [name for name in before if now.get(name) != before[name]]
    if changed:
        raise ValueError(
            f"{folder}: the files of {', '.join(changed)} changed since this sweep began; put them back, or start anew with "
            f"another --out"
        )


def set_up_logging(console: Console) -> None:
    """The one place that configures logging: everything of ours from INFO, of others from WARNING."""
    if console.is_terminal:
        handler: logging.Handler = RichHandler(console=console, show_path=False, markup=False)
    else:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%H:%M:%S"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    for package in ("orchestrator", "trainables", "search_spaces"):
        logging.getLogger(package).setLevel(logging.INFO)


def _load_tasks(plan: Plan, options: RunOptions) -> dict[str, Loaded]:
    recipe = plan.space.recipe
    return {
        task_name(task): load(
            task,
            data_dir=options.data_dir,
            folder=plan.space.folder,
            train_examples=recipe.train_examples,
            test_examples=recipe.test_examples,
        )
        for task in plan.space.tasks
    }


def _prepare(plan: Plan, found: dict[str, Model], loaded: dict[str, Loaded], out: Path) -> Prepared:
    """Tokenise each task for each model once; trials only read."""
    tokens = {
        (model, task): prepare(examples, str(found[model].path), plan.space.recipe.max_length, out / "tokens")
        for model in found
        for task, examples in loaded.items()
    }
    return Prepared(models=found, tasks=loaded, tokens=tokens)


def _write_state(folder: Path, manifest: dict[str, Any], loaded: dict[str, Loaded]) -> None:
    write_atomic(folder / MANIFEST, json.dumps(manifest, indent=1))
    for name, task in loaded.items():
        indices = {part: list(getattr(task.split_indices, part)) for part in ("train", "validation", "test")}
        write_atomic(folder / "splits" / f"{name}.json", json.dumps(indices))


def _run(
    sweep: Sweep,
    prepared: Prepared,
    options: RunOptions,
    folder: Path,
    console: Console,
    record: Callable[[Mapping[str, Any]], None],
    allowance: TimeBudget | None,
) -> int:
    keeper = CheckpointRetention(sweep, folder / "checkpoints", record)
    keeper.tidy()
    parts = (read(path).train for path in prepared.tokens.values())
    lengths = (len(part.ids) / len(part) for part in parts)
    per_device = options.trials_per_device or trials_per_device(sweep.space, lengths, options.gpus)
    with cluster(options.gpus, per_device, options.address) as (part, temporary), watched():
        record({"event": "lanes", "slots": part.slots, "per_device": part.per_device})
        # Not before: Ray reads its switches and its token when it is imported.
        from orchestrator.execution import tune_runner

        display = ProgressDisplay(sweep, console)
        drain = tune_runner.Drain(goodbye=lambda: log.error("stopped at once; continue with: %s", options.command))
        places = tune_runner.TrialPaths(
            sources=_sources(prepared), data=prepared.tokens, checkpoints=folder / "checkpoints"
        )
        look = allowance.watch(sweep, part.slots) if allowance else lambda: None
        with drain.listening():
            try:
                tune_runner.run(sweep, places, part, temporary, drain, keeper.ended, display.refresh, look)
            finally:
                display.close()
    exit_codes.preempt_on_sigterm()
    if drain.signal is not None and not sweep.finished:
        return exit_codes.INTERRUPTED if drain.signal is signal.SIGINT else exit_codes.PREEMPTED
    return _verdict(sweep)


def _verdict(sweep: Sweep) -> int:
    """Whether what the sweep has is a result: not when too many trials failed, or all of a cell that should have one."""
    empty = [search for search in sweep.cells.values() if search.finished and search.winner is None]
    return exit_codes.TOO_MANY_FAILURES if sweep.broken or (empty and sweep.failures) else exit_codes.COMPLETE


def _sources(prepared: Prepared) -> dict[str, str]:
    """Where a trial's process finds each model: a directory for local ones, the name for the others."""
    return {name: str(model.path) if Path(name).is_dir() else name for name, model in prepared.models.items()}


def _finish(sweep: Sweep, code: int, delivered: bool, folder: Path, uri: str, options: RunOptions) -> int:
    if not delivered:
        log.error(
            "the tracking store %s did not take everything; the ledger holds it, and the same command delivers it",
            redact(uri),
        )
        return code or exit_codes.ENVIRONMENT
    arguments = ["--tracking-uri", uri, "--sweep", folder.name, "--out", str(options.report)]
    done = subprocess.run([sys.executable, "-m", "reports", *arguments], env=environment(), check=False)
    if done.returncode:
        log.error("the report could not be written (exit code %d)", done.returncode)
        return code or exit_codes.ENVIRONMENT
    log.info("report: %s", options.report / "summary.md")
    if code in (exit_codes.INTERRUPTED, exit_codes.PREEMPTED):
        log.info("interrupted; nothing that was acknowledged is lost. Continue with: %s", options.command)
    elif code == exit_codes.TOO_MANY_FAILURES:
        first = sweep.failures[0].outcome
        log.error("stopped: %s; the first: %s", sweep.broken or "a cell has no result", first.reason if first else "")
    return code
