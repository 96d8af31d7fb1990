"""What a planned sweep has left to do and will take. What is not known stays unknown; nothing is guessed.

Knows neither torch nor ray, and writes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

from orchestrator.execution.cluster import count_cores, device_name
from orchestrator.execution.concurrency import trials_per_device
from orchestrator.ledger import read, read_history
from orchestrator.planning.disk_usage import footprint
from orchestrator.planning.plan import Plan, corners
from orchestrator.planning.sweep_manifest import sweep_id
from orchestrator.planning.throughput import Setting, expected, measured, setting_of
from orchestrator.planning.token_counts import TokenCount, length
from orchestrator.run_options import RunOptions
from orchestrator.search.durations import seconds
from search_spaces.events import SearchesEndedEarly
from search_spaces.history import SweepHistory
from search_spaces.language import Cell, task_name
from search_spaces.records import BUDGET
from trainables.tasks import TASKS
from trainables.training.parameter_counts import build


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What would be asked for: devices, trials on each; 0 what is not known before it starts."""

    devices: int
    per_device: int

    @property
    def slots(self) -> int:
        return self.devices * self.per_device


@dataclass
class Done:
    """What the ledger says of one cell: trials that have ended, states of all, epochs on record of those that have not ended."""

    searched: int = 0
    finals: int = 0
    begun: int = 0
    states: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Left:
    """Epochs that a cell has still to train, and those of them that come one after the other: at least, at most."""

    least: int
    most: int
    chain_least: int
    chain_most: int


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """All that a preview tells beyond the plan. `paces`: seconds of an epoch and whether exactly that was timed, of the cells
    for which it is known; `lengths` by (model, task); `ended_early`: the time budget that has ended the searches, if one has.
    """

    folder: Path
    machine: Machine
    lengths: Mapping[tuple[str, str], TokenCount | None]
    done: Mapping[Cell, Done]
    left: Mapping[Cell, Left]
    paces: Mapping[Cell, tuple[float, bool]]
    ended_early: str

    @property
    def hours(self) -> tuple[float, float] | None:
        """Least and most hours of training that are left; None while something they depend on is not known."""
        busy = {cell: each for cell, each in self.left.items() if each.most}
        if not self.machine.slots or not busy.keys() <= self.paces.keys():
            return None
        pace = {cell: self.paces[cell][0] for cell in busy}
        least = [(pace[cell] * each.least, pace[cell] * each.chain_least) for cell, each in busy.items()]
        most = [(pace[cell] * each.most, pace[cell] * each.chain_most) for cell, each in busy.items()]
        return _shortest(least, self.machine.slots) / 3600, makespan(most, self.machine.slots) / 3600

    @property
    def tokens(self) -> tuple[float, float] | None:
        """Least and most training tokens that are left; None while a task's are not known."""
        sizes = {cell: self.lengths[cell.model, cell.task] for cell in self.left}
        known = [(size.tokens, self.left[cell]) for cell, size in sizes.items() if size]
        if len(known) < len(sizes):
            return None
        return sum(each * left.least for each, left in known), sum(each * left.most for each, left in known)


def look_ahead(plan: Plan, options: RunOptions) -> Forecast:
    """Read the ledgers under `options.out`, and a sample of the texts that are on this machine."""
    space = plan.space
    folder = options.out / sweep_id(space)
    history = read_history(folder)
    by_name = {task_name(task): task for task in space.tasks}
    ended_early, resumes = _time_budget(history.ended_early, options.budget)
    known = done(history, resumes)

    @cache
    def tokens_of(model: str, name: str, train_examples: int) -> TokenCount | None:
        if name not in by_name and name not in TASKS:
            return None
        recipe = replace(space.recipe, train_examples=train_examples)
        return length(by_name.get(name, name), model, recipe, options.data_dir, space.folder)

    pairs = dict.fromkeys((cell.model, cell.task) for cell in space.cells)
    lengths = {pair: tokens_of(*pair, space.recipe.train_examples) for pair in pairs}
    machine = _machine(plan, options, lengths.values())
    timed = measured(options.out)

    def tokens(setting: Setting) -> float | None:
        found = tokens_of(setting.model, setting.task, setting.train_examples)
        return found.tokens if found else None

    paces = {cell: expected(_setting(plan, cell, options, machine), timed, tokens) for cell in space.cells}
    return Forecast(
        folder=folder,
        machine=machine,
        lengths=lengths,
        done=known,
        left={cell: left(plan, cell, known.get(cell, Done()), not ended_early) for cell in space.cells},
        paces={cell: pace for cell, pace in paces.items() if pace},
        ended_early=ended_early,
    )


def check_budget(plan: Plan, options: RunOptions) -> None:
    """Raise ValueError for a time budget that a new sweep cannot keep by what is known of this machine's speed."""
    if not options.budget or read(options.out / sweep_id(plan.space)):
        return
    forecast = look_ahead(plan, options)
    if not forecast.machine.slots or len(forecast.paces) < len(forecast.left):
        return
    shortest = min(*(plan.epochs(entry)[0] for entry in plan.space.methods), plan.space.recipe.patience + 1)
    finals = plan.space.budget.final_seeds * shortest
    each = [(pace * (1 + finals), pace * (1 + shortest)) for pace, _ in forecast.paces.values()]
    needed = _shortest(each, forecast.machine.slots)
    if needed > seconds(options.budget):
        raise ValueError(
            f"--budget {options.budget}: one configuration of each of {len(each)} cells and its finals take at least "
            f"{needed / 60:.1f} min here, by the speed of earlier sweeps in {options.out}; give more, or fewer cells or --seeds"
        )


def done(history: SweepHistory, resumes: bool = False) -> dict[Cell, Done]:
    """Return by cell what of a sweep has ended or begun; finals of a winner that no longer stands are not counted as finals.

    `resumes`: searches that a time budget had ended will go on.
    """
    won = {} if resumes else history.winners
    found: dict[Cell, Done] = {}
    for known in history.trials.values():
        trial, end = known.trial, known.outcome
        cell = found.setdefault(trial.cell, Done())
        state = end.state if end and not (resumes and end.reason == BUDGET) else "begun"
        cell.states[state] = cell.states.get(state, 0) + 1
        if state == "begun":
            cell.begun += len(known.curve)
        elif trial.phase == "search":
            cell.searched += 1
        else:
            winner = history.trials.get(won.get(trial.cell, ""))
            cell.finals += bool(winner and winner.trial.hyperparameters == trial.hyperparameters)
    return found


def left(plan: Plan, cell: Cell, known: Done, searching: bool = True) -> Left:
    """Epochs of a cell that has this much behind it; `searching`: no time budget has ended its search.

    At most: no trial is stopped, and each runs all its epochs. At least: ASHA stops all that it can at the first rung, and
    patience ends the others as early as it can. Trials that diverge or fail end sooner, which cannot be foreseen.
    """
    budget, entry = plan.space.budget, plan.space.entry(cell.method)
    fewest, epochs = plan.epochs(entry)
    tries = max(0, plan.num_configurations(entry) * budget.search_seeds - known.searched) if searching else 0
    finals = max(0, budget.final_seeds - known.finals)
    shortest = min(fewest, plan.space.recipe.patience + 1)
    # Trial n is judged by trials 0 .. n - in_flight, and only if they are `min_values` at least.
    unjudged = min(tries, max(0, budget.min_values + budget.in_flight - 1 - known.searched))
    stopped, rounds = min(budget.grace, shortest), -(-tries // budget.in_flight)
    return Left(
        least=max(0, (unjudged + finals) * shortest + (tries - unjudged) * stopped - known.begun),
        most=max(0, (tries + finals) * epochs - known.begun),
        chain_least=max(0, rounds * stopped + (shortest if finals else 0) - known.begun),
        chain_most=rounds * epochs + (epochs if finals else 0),
    )


def disk(plan: Plan) -> tuple[int, int] | None:
    """Bytes of checkpoints, at most: of the best of all cells, and of one running trial, old and new side by side for a moment.

    None while a model's shape is not known.
    """
    kept = running = 0
    for cell in plan.space.cells:
        shape, entry = plan.shapes[cell.model], plan.space.entry(cell.method)
        if shape is None:
            return None
        outputs = plan.tasks[cell.task].outputs or 2
        sizes = [footprint(build(entry.name, s, shape), shape, outputs) for s in corners(plan.space.values_of(entry))]
        kept += max(size.kept for size in sizes)
        running = max(running, *(2 * size.running for size in sizes))
    return kept, running


def makespan(chains: Iterable[tuple[float, float]], slots: int) -> float:
    """The longest that a sweep can take on `slots` devices that never idle while a job could start.

    `chains`: for each cell its seconds of work, and those that have to come one after the other. Graham's bound (1966): work
    over slots, and the longest chain's share that cannot be divided.
    """
    known = list(chains)
    longest = max((chain for _, chain in known), default=0.0)
    return sum(work for work, _ in known) / slots + longest * (1 - 1 / slots)


def _shortest(chains: Iterable[tuple[float, float]], slots: int) -> float:
    """No schedule is shorter: the work is shared, and a chain is not."""
    known = list(chains)
    return max(sum(work for work, _ in known) / slots, max((chain for _, chain in known), default=0.0))


def _machine(plan: Plan, options: RunOptions, lengths: Iterable[TokenCount | None]) -> Machine:
    known = [each.mean for each in lengths if each]
    unknown = not known or len(known) < len({(cell.model, cell.task) for cell in plan.space.cells})
    devices = options.gpus or (0 if options.address else count_cores())
    per_device = options.trials_per_device
    if not per_device and not (options.gpus and unknown):
        per_device = trials_per_device(plan.space, known, options.gpus)
    return Machine(devices=devices, per_device=per_device)


def _setting(plan: Plan, cell: Cell, options: RunOptions, machine: Machine) -> Setting:
    method = plan.space.entry(cell.method).name
    return setting_of(cell, method, plan.space.recipe, device_name(options.gpus), machine.per_device)


def _time_budget(ended_early: SearchesEndedEarly | None, given: str | None) -> tuple[str, bool]:
    """Return the time budget that has ended the searches for good, and whether one has that does so no longer with `given`."""
    if ended_early is None:
        return "", False
    holds = given is not None and seconds(given) <= ended_early.allowed
    return (ended_early.budget, False) if holds else ("", True)
