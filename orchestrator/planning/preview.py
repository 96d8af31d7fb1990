"""Makes the texts that `--plan` and `--list` print."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator

from orchestrator.execution.concurrency import most_search_trials
from orchestrator.planning.forecast import Forecast, Machine, disk, make_forecast
from orchestrator.planning.plan import Plan
from orchestrator.planning.speed_guess import token_seconds
from orchestrator.run_options import RunOptions
from search_spaces.dimensions import grid_size
from search_spaces.language import Budget, Choice, Dimension, MethodEntry
from search_spaces.loading import docstring, names
from search_spaces.peft_rows import PEFT
from search_spaces.plugins import check_plugins
from search_spaces.quantization import precision_words
from search_spaces.records import END_STATES
from trainables.backbone import models
from trainables.backbone.stored_bytes import stored_bytes
from trainables.methods import METHODS
from trainables.methods.peft_row import installed_peft
from trainables.tasks import TASKS
from trainables.training.parameter_counts import build, count

# For the announcement of a probe: seconds to start, least seconds for a method, its usual longest duration in all, and examples
# that it trains of each method.
PROBE_START, PROBE_METHOD, PROBE_LIMIT, PROBE_EXAMPLES = 10.0, 2.5, 70.0, 10 * 16


def plan_text(plan: Plan, options: RunOptions) -> str:
    """Return the text of --plan: cells, trials and parameters; tokens, hours and disk space if known; the progress so far."""
    space, budget = plan.space, plan.space.budget
    seeds = f" on {budget.search_seeds} seeds each" if budget.search_seeds > 1 else ""
    asha = f"ASHA rungs from epoch {budget.grace}, factor {budget.reduction}{budget.comparisons(space.recipe.epochs)}"
    if budget.grace >= space.recipe.epochs:
        asha = "no ASHA rung before the last epoch"
    forecast = make_forecast(plan, options)
    lines = [
        f"{space.name}: {space.title or 'untitled'}",
        f"  {_number(len(space.models), 'model')} x {_number(len(space.tasks), 'task')} x "
        f"{_number(len(space.methods), 'method')} = {_number(len(space.cells), 'cell')}",
        f"  {plan.trials} trials: at most {budget.trials} tried per cell{budget.proposed}{seeds}, its winner re-trained on "
        f"{_number(budget.final_seeds, 'fresh seed')}{_searches(budget)}",
        f"  at most {_number(space.recipe.epochs, 'epoch')} each, patience {space.recipe.patience}; at most "
        f"{_number(space.in_flight, 'trial')} of a cell at once; {asha}",
        "",
        f"  models   {', '.join(f'{models.title(m)} ({m})' for m in space.models)}",
        *(f"  backbone {text}" for text in _precision(plan)),
        f"  tasks    {', '.join(_task(plan, name) for name in plan.tasks)}",
        *(f"  data     {plan.tasks[name].title}: {note}" for name, notes in plan.data_notes.items() for note in notes),
        "",
    ]
    lines += _table(
        [
            ["method", "searched", "points", "tries", "seconds an epoch", _parameters_title(plan)],
            *(_row(plan, entry, forecast) for entry in space.methods),
        ]
    )
    alone = [entry.label for entry in space.methods if entry.name == PEFT]
    if alone:
        lines += [
            "",
            f"  trained alone by peft {installed_peft()}, each trial on a copy of the model: {', '.join(alone)}",
        ]
    if budget.search == "multi" and (alike := [entry.label for entry in space.methods if plan.one_size(entry)]):
        lines += ["", f"  one size, so that no smaller configuration can be found: {', '.join(alike)}"]
    if plan.reductions:
        lines += ["", "  changed from the space as written: " + "; ".join(plan.reductions)]
    told = [(name, text) for name, text in _forecast_lines(plan, options, forecast) if text]
    return "\n".join([*lines, "", *(f"  {name:<8} {text}" for name, text in told)])


def _number(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _precision(plan: Plan) -> Iterator[str]:
    """Yield what the recipe's precision means and how much memory it saves, one line; none for fp32."""
    recipe, sizes = plan.space.recipe, []
    for name, shape in plan.shapes.items():
        if recipe.nf4 and shape:
            small, plain = (_mebibytes(stored_bytes(shape, how)) for how in (recipe.nf4, None))
            sizes.append(f"{models.title(name)} {small} instead of {plain}")
    if words := precision_words(recipe):
        yield "; weights: ".join(filter(None, [words, ", ".join(sizes)]))


def _task(plan: Plan, name: str) -> str:
    """Return a task's title with its score, the origin of its test split, and how many examples the recipe allows."""
    task, recipe = plan.tasks[name], plan.space.recipe.of_task(name)
    limits = ((recipe.train_examples, "train"), (recipe.test_examples, "test"))
    most = " and ".join(f"{number} {part}" for number, part in limits if number)
    return f"{task.title} ({task.metrics[0]}, test: {task.test_source}{f', at most {most} examples' if most else ''})"


def _searches(budget: Budget) -> str:
    """Return how often a cell is searched, and what of this a difference between methods then covers, as a part of a sentence."""
    if budget.searches > 1:
        return f"; {budget.searches} times, each search with its own validation split, seeds and winner"
    return "; one search: differences hold for the configurations found (Budget(searches=3) varies the search)"


def list_text(kind: str) -> str:
    """Return the text of --list: all spaces, methods, tasks and models, or one `kind` of them. Kind "methods" gives details.

    Raises ValueError if another package offers something that cannot be used.
    """
    known = names()
    check_plugins()
    if kind == "methods":
        return "\n".join(_table(_methods()))
    blocks = {
        "spaces": [[name, docstring(name)] for name in known],
        "methods": [[name, f"{method.title} ({method.paper})"] for name, method in METHODS.items()],
        "tasks": [[task.name, f"{task.title}: {task.metrics[0]}, {task.source}"] for task in TASKS.values()],
        "models": [[name, models.title(name)] for name in models.NAMES],
    }
    shown = blocks if kind == "all" else {kind: blocks[kind]}
    return "\n\n".join("\n".join([title, *_table(rows)]) for title, rows in shown.items())


def _methods() -> list[list[str]]:
    shape = models.shape_of(models.KNOWN_CONFIGS["bert-base-uncased"])
    rows = [["method", "family", "paper", "searched", "trained on BERT-base", "backbone"]]
    for name, kind in METHODS.items():
        counts = count(build(name, {}, shape), shape, outputs=2)
        searched = " ".join(f"{key} {_dimension(d)}" for key, d in kind.search.items())
        trained = f"{counts.trained:,} ({100 * counts.trained / counts.total:.3g} %)"
        rows.append([name, kind.family, kind.paper, searched, trained, "shared" if kind.shares_backbone else "its own"])
    return rows


def _forecast_lines(plan: Plan, options: RunOptions, forecast: Forecast) -> list[tuple[str, str]]:
    """Return the (name, text) of each line on the work that is left and what it needs. Lines with an empty text are dropped."""
    return [
        ("tokens", _tokens(plan, forecast)),
        ("cut", _cut(plan, forecast)),
        ("time", _time(plan, options, forecast)),
        ("besides", _ablations(plan)),
        ("disk", _disk(plan, forecast, options)),
        ("asks for", _devices(plan, options, forecast)),
        ("budget", f"{options.budget}: the searches end in time for the finals" if options.budget else ""),
        ("done", _done(plan, forecast)),
    ]


def _tokens(plan: Plan, forecast: Forecast) -> str:
    each = [
        f"{plan.tasks[task].title} on {models.title(model)} {_about(size.tokens)} ({size.examples:,} examples)"
        for (model, task), size in forecast.token_counts.items()
        if size
    ]
    unknown = len(forecast.token_counts) - len(each)
    missing = f"unknown for {unknown} of {len(forecast.token_counts)} pairs of model and task" if unknown else ""
    return "; ".join(filter(None, [f"an epoch: {', '.join(each)}" if each else "", missing]))


def _cut(plan: Plan, forecast: Forecast) -> str:
    """Return how many examples have more tokens than the recipe allows, of those that were looked at."""
    each = [
        f"{plan.tasks[task].title} on {models.title(model)} {size.cut}"
        for (model, task), size in forecast.token_counts.items()
        if size and size.cut.cut
    ]
    return f"to {plan.space.recipe.max_length} tokens, of the examples looked at: {'; '.join(each)}" if each else ""


def _time(plan: Plan, options: RunOptions, forecast: Forecast) -> str:
    busy = [cell for cell, epochs in forecast.remaining.items() if epochs.max_total]
    missing = sum(cell not in forecast.epoch_seconds for cell in busy)
    if not busy:
        return "nothing is left to train"
    if missing or forecast.hours is None:
        if options.address:
            return "unknown: no sweep with this cluster has timed it yet"
        downloads = [models.title(name) for name in plan.space.models if models.local(name) is None]
        needs = f" and the download of {', '.join(downloads)}" if downloads else ""
        seconds = _probe_seconds(plan, forecast, options.gpus)
        return f"unknown for {missing or len(busy)} of {len(busy)} cells: --probe times it in about {seconds} s{needs}"
    least, most = map(_duration, forecast.hours)
    source = f"sweeps and probes in {options.out}"
    devices = _device_count(options, forecast)
    return f"{least} to at most {most} of training on {devices}, by {source}; start and report not counted"


def _probe_seconds(plan: Plan, forecast: Forecast, gpus: int) -> int:
    """Return about how long a probe takes, downloads not counted."""
    seconds, methods = PROBE_START, len({entry.name for entry in plan.space.methods})
    for name, shape in plan.shapes.items():
        known = [count.mean for (model, _), count in forecast.token_counts.items() if model == name and count]
        tokens = PROBE_EXAMPLES * (max(known) if known else 40.0)
        seconds += methods * max(PROBE_METHOD, tokens * token_seconds(shape, gpus > 0) if shape else 0.0)
    return math.ceil(min(seconds, PROBE_LIMIT) / 5) * 5


def _ablations(plan: Plan) -> str:
    """Return how many extra evaluations the layer ablation needs per final, "" if no row is ablated.

    An ablated row is evaluated on the validation split without each span of layers. The forecast hours do not include this.
    """
    labels = [entry.label for entry in plan.space.methods if entry.ablated]
    if not labels:
        return ""
    spans = {shape.layers * (shape.layers + 1) // 2 + 1 for shape in plan.shapes.values() if shape}
    times = " or ".join(map(str, sorted(spans))) or "an unknown number of"
    return (
        f"{times} more evaluations of each final of {', '.join(labels)}, without spans of its layers; not in the hours"
    )


def _disk(plan: Plan, forecast: Forecast, options: RunOptions) -> str:
    sizes = disk(plan, options.keep)
    if sizes is None:
        return "unknown"
    kept, running = sizes
    together = f", together {_mebibytes(kept + forecast.machine.slots * running)}" if forecast.machine.slots else ""
    finals = {"all": "all finals", "best": "the best final of each cell", "none": "the finals"}
    parts = f"{_mebibytes(kept)} for {finals[options.keep]} and {_mebibytes(running)} for each running trial"
    return f"checkpoints: at most {parts}{together}"


def _mebibytes(size: float) -> str:
    return f"{math.ceil(size / 2**20):,} MiB"


def _devices(plan: Plan, options: RunOptions, forecast: Forecast) -> str:
    """Return the number of GPUs or cores, of trials on each, and of processes apart from the driver's and Ray's own."""
    device, machine = "GPU" if options.gpus else "core", forecast.machine
    if not machine.devices:
        return f"all cores of the cluster at {options.address}"
    devices = _device_count(options, forecast)
    if not machine.per_device:
        return f"{devices}; as many trials on each as fill it, known once the data are read"
    of_use = math.ceil(machine.most_trials / machine.per_device)
    useful = f"; more than {of_use} {device}{'' if of_use == 1 else 's'} could not be used{_wider(plan, machine)}"
    if machine.per_device == 1:
        return f"{devices}, one trial on each, in a process of its own{useful}"
    places = machine.devices * machine.per_device
    least = f"{machine.fewest_slots} to " if machine.fewest_slots < machine.slots else ""
    most = f"{least}{machine.slots} at once" + (", all that can" if machine.slots < places else "")
    return f"{devices}, {machine.per_device} trials on each ({most}), in one process each{useful}"


def _wider(plan: Plan, machine: Machine) -> str:
    """Return which `in_flight` gives every device a trial while the searches run, "" if they have enough at once or cannot."""
    space, busy = plan.space, most_search_trials(plan.space)
    at_once = min(math.ceil(space.in_flight * machine.devices / busy), space.budget.trials * space.budget.search_seeds)
    if busy >= machine.devices or at_once <= space.in_flight:
        return ""
    return (
        f"; the searches use {busy} of them at once, --set budget.in_flight={at_once} more, "
        "each trial then proposed from the results of fewer"
    )


def _device_count(options: RunOptions, forecast: Forecast) -> str:
    number, fewest = forecast.machine.devices, forecast.machine.fewest
    either = f"{fewest} to " if fewest < number else ""
    return f"{either}{number} {'GPU' if options.gpus else 'core'}{'' if number == 1 else 's'}"


def _duration(hours: float) -> str:
    """Format a duration with two significant digits, in the unit in which it is at least 1: 40 s, 12 min, 3.5 h, 2.1 days."""
    for size, unit in ((48.0, "days"), (1.0, "h"), (1 / 60, "min")):
        if hours >= size:
            value = hours / (24.0 if unit == "days" else size)
            return f"{value:.2g} {unit}" if value < 100 else f"{value:,.0f} {unit}"
    return f"{hours * 3600:.2g} s"


def _done(plan: Plan, forecast: Forecast) -> str:
    if not forecast.progress:
        return f"nothing of it has run yet ({forecast.folder})"
    states: Counter[str] = Counter()
    for search in forecast.progress.values():
        states.update(search.states)
    begun = states.pop("begun", 0)
    told = ", ".join(f"{states[state]} {state}" for state in END_STATES if state in states)
    known = forecast.progress
    numbers, finals = range(plan.space.budget.searches), plan.space.budget.final_seeds
    finished = sum(
        all((cell, n) in known and known[cell, n].num_finals >= finals for n in numbers) for cell in plan.space.cells
    )
    parts = [f"{states.total()} of {plan.trials} trials have ended ({told or 'none'})"]
    parts += [f"{begun} begun, to be continued"] if begun else []
    parts += [f"{finished} of {len(plan.space.cells)} cells finished"]
    parts += [f"--budget {forecast.ended_early} ended the searches"] if forecast.ended_early else []
    return f"{'; '.join(parts)}, in {forecast.folder}"


def _span(low: str, high: str) -> str:
    return low if low == high else f"{low} to {high}"


def _about(number: float) -> str:
    """Format a number with three significant digits: 840, 27.9 thousand, 1.25 million."""
    for size, word in ((1e9, "thousand million"), (1e6, "million"), (1e3, "thousand")):
        if number >= size:
            return f"{number / size:.3g} {word}"
    return f"{number:.3g}"


def _row(plan: Plan, entry: MethodEntry, forecast: Forecast) -> list[str]:
    dimensions = plan.space.dimensions_of(entry)
    size = grid_size(dimensions)
    searched = " ".join(f"{name} {_dimension(d)}" for name, d in dimensions.items())
    drawn = "random" if plan.space.budget.search == "random" else "TPE"
    points = drawn if math.isinf(size) else f"{drawn if size > plan.space.budget.trials else 'all'} of {size:g}"
    return [
        entry.label,
        searched,
        points,
        str(plan.num_configurations(entry)),
        _epoch_seconds(entry, forecast),
        _parameters(plan, entry),
    ]


def _epoch_seconds(entry: MethodEntry, forecast: Forecast) -> str:
    """Return the range of the seconds of an epoch over models and tasks.

    "about" marks estimates from other tasks or methods.
    """
    cells = [cell for cell in forecast.remaining if cell.method == entry.label]
    known = [forecast.epoch_seconds[cell] for cell in cells if cell in forecast.epoch_seconds]
    if len(known) < len(cells):
        return "unknown" if not known else f"unknown for {len(cells) - len(known)} of {len(cells)}"
    low, high = (f"{found:.2g}" for found in (min(known)[0], max(known)[0]))
    return ("" if all(exact for _, exact in known) else "about ") + _span(low, high)


def _parameters_title(plan: Plan) -> str:
    """Return the header of the column of parameter counts, with the outputs of the heads that these include."""
    outputs = _span(str(plan.outputs[0]), str(plan.outputs[-1]))
    return f"trained parameters (with a head of {outputs} output{'' if outputs == '1' else 's'})"


def _parameters(plan: Plan, entry: MethodEntry) -> str:
    parts = []
    for name, shape in plan.shapes.items():
        if entry.name == PEFT:
            trained = plan.peft.get((name, entry.label))
            known = f"{trained.least:,} to {trained.most:,}" if trained else "unknown until measured"
            parts.append(
                f"{models.title(name)} {f'{trained.least:,}' if trained and trained.least == trained.most else known}"
            )
            continue
        if shape is None:
            parts.append(f"{name}: unknown until downloaded")
            continue
        low, high = plan.counts(entry, shape)
        spread = f"{low.trained:,}" if low == high else f"{low.trained:,} to {high.trained:,}"
        parts.append(f"{models.title(name)} {spread} ({100 * high.trained / high.total:.3g} %)")
    return "; ".join(parts)


def _dimension(dimension: Dimension) -> str:
    if isinstance(dimension, Choice):
        return "{" + ", ".join(map(str, dimension.values)) + "}"
    return f"[{dimension.low:g}, {dimension.high:g}{' log' if dimension.log else ''}]"


def _table(rows: list[list[str]]) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
