"""Forecasts the epochs, tokens and hours that a planned sweep still needs, and its disk space. Unknown quantities are None.

Imports neither torch nor Ray, and writes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

from orchestrator.execution.cluster import count_cores, device_name
from orchestrator.execution.concurrency import most_trials, trials_per_device
from orchestrator.ledger import read_history
from orchestrator.planning.disk_usage import DiskUsage, checkpoint_sizes, peft_checkpoint_sizes
from orchestrator.planning.plan import Plan, corners
from orchestrator.planning.sweep_manifest import folder_name
from orchestrator.planning.throughput import Setting, expected, measured, read_probed, setting_of
from orchestrator.planning.token_counts import TokenCount, count_tokens
from orchestrator.run_options import Keep, RunOptions
from orchestrator.search.asha import Brackets
from orchestrator.search.durations import seconds
from search_spaces.events import SearchesEndedEarly
from search_spaces.history import SweepHistory
from search_spaces.language import Cell, task_name
from search_spaces.peft_rows import PEFT
from search_spaces.records import BUDGET, SearchKey
from trainables.tasks import TASKS
from trainables.training.parameter_counts import build


@dataclass(frozen=True, kw_only=True)
class Machine:
    """The number of devices that a sweep would use, and of trials on each; 0 if not known before the sweep starts.

    fewest: the number of devices with which it starts, fewer than `devices` with --gpus 4..32.
    most_trials: how many trials of the sweep can run at once on any number of devices.
    """

    devices: int
    fewest: int
    per_device: int
    most_trials: int

    @property
    def slots(self) -> int:
        """How many trials run at once at most; 0 if not known."""
        return min(self.devices * self.per_device, self.most_trials)

    @property
    def fewest_slots(self) -> int:
        """How many trials run at once if no device comes later; 0 if not known."""
        return min(self.fewest * self.per_device, self.most_trials)


@dataclass
class SearchProgress:
    """The progress of one search of a cell according to the ledger.

    num_searched: search trials that have ended. num_finals: finals of its current winner that have ended.
    begun_epochs: epochs trained so far by trials that have not ended.
    states: number of trials in each state; "begun" for those that have not ended.
    """

    num_searched: int = 0
    num_finals: int = 0
    begun_epochs: int = 0
    states: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class RemainingEpochs:
    """Lower and upper bounds of the number of epochs that a search, or all searches of a cell, still have to train.

    `min_total`, `max_total`: sum over all its trials. `min_sequential`, `max_sequential`: sum over the longest sequence of trials
    of which each can only start after the one before has ended.
    """

    min_total: int
    max_total: int
    min_sequential: int
    max_sequential: int


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """The forecast of a sweep. `folder` is the sweep's folder.

    token_counts: by (model, task); None if the texts are not on this machine.
    epoch_seconds: (seconds of one epoch, whether a sweep timed exactly this setting); cells without an estimate are missing.
    ended_early: the time budget that has ended the searches, such as "40h"; "" if none has.
    """

    folder: Path
    machine: Machine
    token_counts: Mapping[tuple[str, str], TokenCount | None]
    progress: Mapping[SearchKey, SearchProgress]
    remaining: Mapping[Cell, RemainingEpochs]
    epoch_seconds: Mapping[Cell, tuple[float, bool]]
    ended_early: str

    @property
    def hours(self) -> tuple[float, float] | None:
        """Lower and upper bound of the hours of training that remain; None if the speed of a cell is not known."""
        busy = {cell: each for cell, each in self.remaining.items() if each.max_total}
        if not self.machine.slots or not busy.keys() <= self.epoch_seconds.keys():
            return None
        seconds_of = {cell: self.epoch_seconds[cell][0] for cell in busy}
        least = [
            (seconds_of[cell] * each.min_total, seconds_of[cell] * each.min_sequential) for cell, each in busy.items()
        ]
        most = [
            (seconds_of[cell] * each.max_total, seconds_of[cell] * each.max_sequential) for cell, each in busy.items()
        ]
        return _shortest(least, self.machine.slots) / 3600, makespan(most, self.machine.fewest_slots) / 3600


def make_forecast(plan: Plan, options: RunOptions) -> Forecast:
    """Return the forecast, from ledgers and probes under `options.out` and a sample of the texts that are on this machine."""
    space = plan.space
    folder = options.out / folder_name(space)
    history = read_history(folder)
    by_name = {task_name(task): task for task in space.tasks}
    ended_early, resumes = _time_budget(history.ended_early, options.budget)
    known = search_progress(history, resumes)
    timed, probed = measured(options.out), read_probed(options.out)

    @cache
    def tokens_of(model: str, name: str, train_examples: int) -> TokenCount | None:
        if name not in by_name and name not in TASKS:
            return None
        recipe = replace(space.recipe, train_examples=train_examples)
        counted = count_tokens(by_name.get(name, name), model, recipe, options.data_dir, space.folder)
        return counted or probed.tokens.get((model, name, recipe.max_length, train_examples))

    pairs = dict.fromkeys((cell.model, cell.task) for cell in space.cells)
    lengths = {pair: tokens_of(*pair, space.recipe.limit("train_examples", pair[1])) for pair in pairs}
    machine = _machine(plan, options, lengths.values())

    def tokens(setting: Setting) -> float | None:
        found = tokens_of(setting.model, setting.task, setting.train_examples)
        return found.tokens if found else None

    estimates = {
        cell: expected(_setting(plan, cell, options, machine), timed, tokens, probed.seconds) for cell in space.cells
    }
    return Forecast(
        folder=folder,
        machine=machine,
        token_counts=lengths,
        progress=known,
        remaining={
            cell: combined(
                remaining_epochs(plan, cell, known.get((cell, n), SearchProgress()), not ended_early)
                for n in range(space.budget.searches)
            )
            for cell in space.cells
        },
        epoch_seconds={cell: found for cell, found in estimates.items() if found},
        ended_early=ended_early,
    )


def check_budget(plan: Plan, options: RunOptions) -> None:
    """Raise ValueError if the time budget is too short for a new sweep, judged by the epochs that were timed before.

    A sweep that has begun is not checked, nor is one of which a cell's speed is unknown.
    """
    if not options.budget or read_history(options.out / folder_name(plan.space)).openings:
        return
    forecast = make_forecast(plan, options)
    if not forecast.machine.slots or len(forecast.epoch_seconds) < len(forecast.remaining):
        return
    shortest = min(*(plan.epochs(entry)[0] for entry in plan.space.methods), plan.space.recipe.patience + 1)
    searches = plan.space.budget.searches
    final_epochs = plan.space.budget.final_seeds * shortest
    each = [
        (searches * epoch * (1 + final_epochs), epoch * (1 + shortest)) for epoch, _ in forecast.epoch_seconds.values()
    ]
    needed = _shortest(each, forecast.machine.slots)
    if needed > seconds(options.budget):
        raise ValueError(
            f"--budget {options.budget}: one configuration of each of {len(each)} cells and its finals take at least "
            f"{needed / 60:.1f} min here, by what is timed in {options.out}; give more, or fewer cells or --seeds"
        )


def search_progress(history: SweepHistory, resumes: bool = False) -> dict[SearchKey, SearchProgress]:
    """Return the progress of each search that has a trial. `num_finals` does not include finals of a former winner.

    With `resumes`, searches that a time budget ended will be resumed: the trials that it stopped count as begun, and no search
    has a winner.
    """
    won = {} if resumes else history.winners
    found: dict[SearchKey, SearchProgress] = {}
    for known in history.trials.values():
        trial, end = known.trial, known.outcome
        search = found.setdefault(trial.search_key, SearchProgress())
        state = end.state if end and not (resumes and end.reason == BUDGET) else "begun"
        search.states[state] = search.states.get(state, 0) + 1
        if state == "begun":
            search.begun_epochs += known.epochs
        elif trial.phase == "search":
            search.num_searched += 1
        else:
            winner = history.trials.get(won.get(trial.search_key, ""))
            search.num_finals += bool(winner and winner.trial.hyperparameters == trial.hyperparameters)
    return found


def remaining_epochs(plan: Plan, cell: Cell, known: SearchProgress, searching: bool = True) -> RemainingEpochs:
    """Return the epochs that remain for a search of a cell with this progress.

    `searching` is False if a time budget has ended it.

    For the upper bound, no trial is stopped and each trains all its epochs. For the lower bound, ASHA stops at the first rung
    every trial that it may stop, and early stopping ends the others as soon as possible. Trials that diverge or fail may end
    even sooner.
    """
    budget, entry, in_flight = plan.space.budget, plan.space.entry(cell.method), plan.space.in_flight
    fewest, epochs = plan.epochs(entry)
    tries = max(0, plan.num_configurations(entry) * budget.search_seeds - known.num_searched) if searching else 0
    finals = max(0, budget.final_seeds - known.num_finals)
    shortest = min(fewest, plan.space.recipe.patience + 1)
    brackets = Brackets(budget, plan.space.recipe.epochs, plan.num_configurations(entry))
    stopped = [
        min(brackets.all[number].grace, shortest) if can_stop else shortest
        for number, can_stop in zip(brackets.of_trial, brackets.can_stop(in_flight), strict=True)
    ][known.num_searched :][:tries]
    first, rounds = min(budget.grace, shortest), -(-tries // in_flight)
    return RemainingEpochs(
        min_total=max(0, sum(stopped) + finals * shortest - known.begun_epochs),
        max_total=max(0, (tries + finals) * epochs - known.begun_epochs),
        min_sequential=max(0, rounds * first + (shortest if finals else 0) - known.begun_epochs),
        max_sequential=rounds * epochs + (epochs if finals else 0),
    )


def combined(searches: Iterable[RemainingEpochs]) -> RemainingEpochs:
    """Return the epochs that remain for searches of a cell together, which do not wait for each other."""
    known = list(searches)
    return RemainingEpochs(
        min_total=sum(each.min_total for each in known),
        max_total=sum(each.max_total for each in known),
        min_sequential=max(each.min_sequential for each in known),
        max_sequential=max(each.max_sequential for each in known),
    )


def disk(plan: Plan, keep: Keep) -> tuple[int, int] | None:
    """Return upper bounds in bytes of (the checkpoints kept for all cells, the checkpoint of one running trial).

    A running trial counts twice, since its old file is kept until the new one is written. None if a model's shape is not known.
    """
    budget = plan.space.budget
    kept = {"all": budget.final_seeds * budget.searches, "best": 1, "none": 0}[keep]
    finished = running = 0
    for cell in plan.space.cells:
        sizes = _checkpoint_sizes(plan, cell)
        if sizes is None:
            return None
        finished += kept * max(size.finished for size in sizes)
        running = max(running, *(2 * size.running for size in sizes))
    return finished, running


def _checkpoint_sizes(plan: Plan, cell: Cell) -> list[DiskUsage] | None:
    """Return the sizes of the checkpoints of a cell's trials over its settings; None if they are not known."""
    shape, entry = plan.shapes[cell.model], plan.space.entry(cell.method)
    if entry.name == PEFT:
        trained = plan.peft.get((cell.model, cell.method))
        return [peft_checkpoint_sizes(trained.most)] if trained else None
    if shape is None:
        return None
    outputs = plan.tasks[cell.task].outputs or 2
    return [checkpoint_sizes(build(entry.name, s, shape), shape, outputs) for s in corners(plan.space.values_of(entry))]


def makespan(chains: Iterable[tuple[float, float]], slots: int) -> float:
    """Return an upper bound of the seconds that a sweep takes with `slots` trials at once, if no slot idles while a trial could
    start.

    `chains` has for each cell (seconds of all its trials, seconds of its longest sequence of dependent trials). Graham's bound
    (1966) is the sum of all work divided by `slots`, plus (1 - 1 / slots) times the longest sequence.
    """
    known = list(chains)
    longest = max((chain for _, chain in known), default=0.0)
    return sum(work for work, _ in known) / slots + longest * (1 - 1 / slots)


def _shortest(chains: Iterable[tuple[float, float]], slots: int) -> float:
    """Return a lower bound of the seconds of any schedule: the larger of all work / `slots` and the longest sequence.

    `chains` is as in `makespan`.
    """
    known = list(chains)
    return max(sum(work for work, _ in known) / slots, max((chain for _, chain in known), default=0.0))


def _machine(plan: Plan, options: RunOptions, lengths: Iterable[TokenCount | None]) -> Machine:
    known = [each.mean for each in lengths if each]
    unknown = not known or len(known) < len({(cell.model, cell.task) for cell in plan.space.cells})
    cores = 0 if options.gpus or options.address else count_cores()
    per_device = options.trials_per_device
    if not per_device and not (options.gpus and unknown):
        per_device = trials_per_device(plan.space, known, options.fewest_gpus)
    return Machine(
        devices=options.gpus or cores,
        fewest=options.fewest_gpus or cores,
        per_device=per_device,
        most_trials=most_trials(plan.space),
    )


def _setting(plan: Plan, cell: Cell, options: RunOptions, machine: Machine) -> Setting:
    entry = plan.space.entry(cell.method)
    device = device_name(options.gpus)
    return setting_of(cell, entry.name, entry.settings, plan.space.recipe, device, machine.per_device)


def _time_budget(ended_early: SearchesEndedEarly | None, given: str | None) -> tuple[str, bool]:
    """Return (the time budget that ended the searches and still applies, or ""; whether the searches will be resumed).

    They are resumed without a time budget (`given` is None) and with a larger one.
    """
    if ended_early is None:
        return "", False
    holds = given is not None and seconds(given) <= ended_early.allowed
    return (ended_early.budget, False) if holds else ("", True)
