"""Runs one sweep from a checked plan to its report: prepares the data, opens the ledger, runs Ray Tune, writes to MLflow."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

from rich.console import Console

from orchestrator import exit_codes
from orchestrator.delivery import Delivery
from orchestrator.execution.checkpoint_retention import CheckpointRetention
from orchestrator.execution.cluster import cluster, count_cores, device_name, watched
from orchestrator.execution.concurrency import trials_per_device
from orchestrator.execution.device_load import DeviceLoad
from orchestrator.execution.disk_watch import DiskWatch
from orchestrator.execution.drain import Drain, StartInterrupted
from orchestrator.execution.event_messages import EventMessages
from orchestrator.execution.progress import ProgressDisplay
from orchestrator.execution.time_left import WorkRate
from orchestrator.execution.trial_paths import TrialPaths
from orchestrator.ledger import LEDGER, Damaged, Ledger, advice, write_atomic
from orchestrator.log_lines import set_up_logging
from orchestrator.planning.forecast import disk
from orchestrator.planning.plan import Plan
from orchestrator.planning.sweep_inputs import SweepInputs, load_tasks, prepare_inputs
from orchestrator.planning.sweep_manifest import (
    add_notes,
    fingerprints,
    folder_name,
    make_manifest,
    new_sweep_id,
    space_file,
)
from orchestrator.private_files import private_files
from orchestrator.run_options import RunOptions
from orchestrator.search.result_cache import ResultCache
from orchestrator.search.study_storage import FILE as STUDIES
from orchestrator.search.study_storage import write_studies
from orchestrator.search.sweep import Sweep
from orchestrator.search.time_budget import TimeBudget, stopwatch
from orchestrator.search.trial_names import TrialNames
from orchestrator.tracking.tracker import Tracker
from search_spaces.events import DevicesShared, Event, LedgerRecord, SweepOpened
from search_spaces.history import SweepHistory
from search_spaces.language import Space
from search_spaces.redaction import clean, redact
from search_spaces.tracking_uri import ARTIFACTS, DATABASE, sqlite_uri
from trainables.backbone.models import resolve
from trainables.tasks.task_data import Loaded
from trainables.worker.checkpoint_store import CheckpointFolder, KeptCheckpoints, NotStored
from trainables.worker.file_system_store import FileSystemStore
from trainables.worker.worker_environment import MANIFEST
from trainables.worker.worker_environment import environment as worker_environment

log = logging.getLogger(__name__)

# Version of the ledger's format. Raise it when the meaning of the records changes.
FORMAT = 1
# Seconds for which a sweep waits for the first answer of the tracking store, before it begins without one.
FIRST_ANSWER = 30.0


class EventLog:
    """Writes events to the ledger, tells the tracker, and passes them to the log and to the measure of the run's speed."""

    def __init__(self, ledger: Ledger, tracker: Tracker, messages: EventMessages):
        self._ledger, self._tracker, self._messages = ledger, tracker, messages
        self.rate = WorkRate()

    def append(self, event: Event) -> None:
        self.publish(self._ledger.append(event))

    def publish(self, records: Sequence[LedgerRecord]) -> None:
        """Pass durable records on."""
        self._tracker.notify()
        for record in records:
            self.rate.apply(record)
            self._messages.log(record.event)


def drive(plan: Plan, options: RunOptions) -> int:
    """Run the sweep and return its exit code. `run.main` turns the exceptions raised here into exit codes."""
    clock = stopwatch()
    console = Console(stderr=True)
    set_up_logging(console)
    log.info("%s: reading models and data", plan.space.name)
    models = {name: resolve(name) for name in plan.space.models}
    tasks = load_tasks(plan, options)
    out = options.out.absolute()
    folder = out / folder_name(plan.space)
    # Before anything is written, because this raises Damaged if the ledger of another sweep is damaged.
    cache = ResultCache(out, folder)
    with private_files() as umask, closing(Ledger.open(folder)) as ledger:
        history = ledger.history
        sweep_id = recorded_id(history, folder) or new_sweep_id(plan.space)
        manifest = make_manifest(
            plan,
            models,
            tasks,
            options.command,
            device_name(options.gpus, options.least_gpus),
            sweep=sweep_id,
            experiment=experiment_of(history, plan.space, options),
        )
        check_unchanged(history, manifest, folder)
        inputs = prepare_inputs(plan, models, tasks, out)
        add_notes(manifest, inputs.cut_notes())
        kept = _open_checkpoints(folder, sweep_id, options.checkpoints, history)
        if options.checkpoints:
            manifest["checkpoints"] = options.checkpoints
        _write_state(folder, manifest, tasks, space_file(plan.space))
        uri = options.tracking_uri or sqlite_uri(out / DATABASE)
        tracker = Tracker(uri, out / ARTIFACTS, folder, ledger.records, options.system_metrics)
        tracker.start()
        before = history.seconds_spent
        time_budget = TimeBudget(options.budget, history, lambda: before + clock()) if options.budget else None
        drain = Drain(options.command)
        metrics = {name: task.task.metrics[0] for name, task in tasks.items()}
        # On a terminal the progress display has the notice.
        messages = EventMessages(
            plan.space, history.trials, metrics, lambda: "" if console.is_terminal else drain.notice
        )
        events = EventLog(ledger, tracker, messages)
        events.append(SweepOpened(format=FORMAT, manifest=manifest))
        sweep = Sweep(plan.space, ledger, cache, inputs.trial, inputs.counts, events.publish)
        log.info(
            "sweep %s in %s; MLflow: %s%s, experiment %s; stop with Ctrl-C, continue with: %s",
            sweep_id,
            folder,
            redact(uri),
            f" ({options.tracking_from})" if options.tracking_from else "",
            manifest["experiment"],
            options.command,
        )
        if sweep.ended_early and (time_budget is None or time_budget.allows_more_than(sweep.ended_early)):
            sweep.resume_searches()
        checkpoints = CheckpointRetention(sweep, kept, events.append, history.measured, options.keep)
        checkpoints.tidy()
        delivery = Delivery(
            tracker=tracker, uri=uri, sweep=sweep_id, ledger=ledger, report=options.report, drain=drain, umask=umask
        )
        with drain.listening(), ExitStack() as stack:
            if sweep.finished:
                code = _verdict(sweep)
            else:
                paths = TrialPaths(
                    sources=inputs.sources(),
                    data=inputs.tokens,
                    checkpoints=folder / "checkpoints",
                    environment=worker_environment(quantized=plan.space.recipe.nf4 is not None),
                    sweep=sweep_id,
                    storage=options.checkpoints or "",
                )
                size = _checkpoint_bytes(plan, options)
                code = _run(
                    sweep, inputs, paths, options, checkpoints, console, events, time_budget, delivery, size, stack
                )
                checkpoints.tidy()  # of what workers wrote late, or left that were killed while they wrote
            if sweep.finished:
                sweep.close()
            code = _finish(sweep, code, delivery, options)
            _write_studies(sweep, folder, ledger.records, manifest)
            if drain.signal is not None:
                drain.end_process(code)
            return code


def recorded_id(history: SweepHistory, folder: Path) -> str:
    """Return the id under which the sweep in `folder` began, "" if it has not begun.

    Raises Damaged if the ledger's opening has none.
    """
    if not history.openings:
        return ""
    found = history.openings[0].manifest.get("sweep")
    if not found or not isinstance(found, str):
        raise Damaged(advice(folder / LEDGER, 1, "opens the sweep with a manifest that lacks sweep"))
    return found


def experiment_of(history: SweepHistory, space: Space, options: RunOptions) -> str:
    """Return the name of the sweep's MLflow experiment: the one in which it began, else the one asked for or the space's name."""
    if not history.openings:
        return options.experiment or space.name
    first = history.openings[0].manifest
    began_in = str(first.get("experiment") or first.get("space", ""))
    if options.experiment not in (None, began_in):
        log.warning("this sweep began in the MLflow experiment %s and stays there", began_in)
    return began_in


def _open_checkpoints(folder: Path, sweep: str, place: str | None, history: SweepHistory) -> KeptCheckpoints:
    """Return the sweep's checkpoints: at `place`, or in its folder. Raises EnvironmentUnfit if the place cannot be written."""
    before = history.manifest.get("checkpoints") if history.openings else place
    if before != place:
        log.warning(
            "checkpoints were in %s until now: trials that have not ended start again, and export does not find the models "
            "that were kept there",
            before or folder / "checkpoints",
        )
    if not place:
        return CheckpointFolder(folder / "checkpoints")
    store = FileSystemStore(place, sweep)
    try:
        store.set_mark()
    except NotStored as error:
        raise exit_codes.EnvironmentUnfit(f"--checkpoints {error}") from None
    return store


def _checkpoint_bytes(plan: Plan, options: RunOptions) -> int:
    """Return an upper bound of the size of a checkpoint in the sweep's folder; 0 if it is not known, or none are kept there."""
    sizes = None if options.checkpoints else disk(plan, options.keep)
    return sizes[1] // 2 if sizes else 0  # of a running trial, with the former one beside it


def check_unchanged(history: SweepHistory, manifest: dict[str, Any], folder: Path) -> None:
    """Check that a continued sweep has the models, the data and the ledger format that it began with.

    Raises ValueError if the models or the data differ, Damaged if the format does, or if the recorded manifest does not contain
    them.
    """
    if not history.openings:
        return
    first = history.openings[0]
    if first.format != FORMAT:
        raise Damaged(
            f"{folder}: another version of this program wrote its ledger; continue with that version, or start anew with "
            f"another --out"
        )
    before, now = _recorded_fingerprints(first.manifest, folder), fingerprints(manifest)
    changed = [name for name in before if now.get(name) != before[name]]
    if changed:
        raise ValueError(
            f"{folder}: the files of {', '.join(changed)} changed since this sweep began; put them back, or start anew with "
            f"another --out"
        )


def _recorded_fingerprints(manifest: Mapping[str, Any], folder: Path) -> dict[str, str]:
    try:
        return fingerprints(manifest)
    except (AttributeError, KeyError, TypeError) as error:
        fault = f"opens the sweep with a manifest that cannot be read ({type(error).__name__}: {error})"
        raise Damaged(advice(folder / LEDGER, 1, fault)) from None


def _write_state(folder: Path, manifest: dict[str, Any], loaded: dict[str, Loaded], space: Path | None) -> None:
    write_atomic(folder / MANIFEST, json.dumps(manifest, indent=1))
    if space:
        write_atomic(folder / space.name, clean(space.read_text(encoding="utf-8", errors="replace")))
    for name, task in loaded.items():
        for number, each in enumerate((task, *task.repeats), start=1):
            indices = {part: list(getattr(each.split_indices, part)) for part in ("train", "validation", "test")}
            file = f"{name}.json" if number == 1 else f"{name}.search{number}.json"
            write_atomic(folder / "splits" / file, json.dumps(indices))


def _write_studies(sweep: Sweep, folder: Path, records: Iterable[LedgerRecord], manifest: Mapping[str, Any]) -> None:
    """Write the searches for Optuna's dashboard. An error of the disk is told and nothing more: no driver reads this file."""
    scores = {name: task["score"] for name, task in manifest["tasks"].items()}
    try:
        write_studies(folder / STUDIES, sweep.searches.values(), records, scores)
    except OSError as error:
        log.warning("%s was not written (%s)", folder / STUDIES, error.strerror or error)


def _run(
    sweep: Sweep,
    inputs: SweepInputs,
    paths: TrialPaths,
    options: RunOptions,
    checkpoints: CheckpointRetention,
    console: Console,
    events: EventLog,
    time_budget: TimeBudget | None,
    delivery: Delivery,
    checkpoint_bytes: int,
    stack: ExitStack,
) -> int:
    """Start or join a Ray cluster, train the rest of the sweep on it and return the exit code. `stack` shuts Ray down."""
    drain, earlier = delivery.drain, delivery.ledger.history.seconds_spent
    gpus, least = options.gpus, options.least_gpus
    per_device = options.trials_per_device or trials_per_device(sweep.space, inputs.mean_lengths(), options.fewest_gpus)

    def on_loss() -> int:
        display.close()
        code = drain.code if drain.signal else exit_codes.CLUSTER_LOST
        try:
            delivery.finish()
        except Exception as error:  # this is the end of the process, which has to come with that code
            log.error("%s", error)
        return code

    start = f"joining Ray at {options.address}" if options.address else f"starting Ray on {device_name(gpus, least)}"
    log.info("%s: this takes 10 to 30 s", start)
    try:
        share, temporary = stack.enter_context(cluster(gpus, per_device, options.address, drain, least))
    except StartInterrupted:
        return drain.code
    display = ProgressDisplay(
        TrialNames(sweep.space),
        console,
        constants=inputs.constant_scores(),
        rate=events.rate,
        slots=share.slots,
        earlier=earlier,
        load=DeviceLoad(0 if options.address else gpus, count_cores()).text,
        notice=lambda: drain.notice,
    )
    with watched(on_loss):
        events.append(DevicesShared(slots=share.slots, per_device=share.per_device))
        delivery.tracker.await_answer(FIRST_ANSWER)
        # Imported only here because Ray reads environment variables and its token at import, and `cluster` sets them.
        from orchestrator.execution.tune_runner import TuneRunner

        runner = TuneRunner(
            sweep=sweep,
            paths=paths,
            checkpoints=checkpoints,
            display=display,
            drain=drain,
            time_budget=time_budget,
            disks=DiskWatch(paths.checkpoints, temporary, share, checkpoint_bytes),
        )
        unfit = ""
        display.start(sweep.snapshot())
        try:
            with drain.training():
                runner.run(share, temporary)
        except exit_codes.EnvironmentUnfit as error:
            unfit = str(error)
        except exit_codes.ClusterLost:
            if drain.signal is None:
                raise
        finally:
            display.close(sweep.snapshot())
    if unfit:
        log.error("stopped: %s. When this is mended, continue with: %s", unfit, options.command)
        return exit_codes.ENVIRONMENT
    return drain.code if drain.signal is not None and not sweep.finished else _verdict(sweep)


def _verdict(sweep: Sweep) -> int:
    """Return TOO_MANY_FAILURES if too many trials failed or, after failures, a cell has no winner, else COMPLETE."""
    empty = [search for search in sweep.searches.values() if search.finished and search.winner is None]
    return exit_codes.TOO_MANY_FAILURES if sweep.broken or (empty and sweep.failures) else exit_codes.COMPLETE


def _finish(sweep: Sweep, code: int, delivery: Delivery, options: RunOptions) -> int:
    """Deliver the records, make the report, say how to go on, and return the exit code of the process."""
    finished = delivery.finish()
    if code in (exit_codes.INTERRUPTED, exit_codes.PREEMPTED):
        log.info("interrupted; nothing that was acknowledged is lost. Continue with: %s", options.command)
    elif code == exit_codes.TOO_MANY_FAILURES:
        first = sweep.failures[0].outcome
        log.error("stopped: %s; the first: %s", sweep.broken or "a cell has no result", first.reason if first else "")
    return code or finished
