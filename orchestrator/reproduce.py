"""Repeats the finals of one cell: `python -m orchestrator.reproduce OUT/SWEEP CELL [--seed N]`.

Trains the cell's winner once more on the seeds of its finals, one at a time, in this process and without Ray, and prints each
test score beside the recorded one. Reads the sweep's folder and the tokens files next to it, and writes nothing there.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from orchestrator import exit_codes
from orchestrator.command_line import exit_code_of, parse
from orchestrator.ledger import read_history
from orchestrator.planning.preflight import check_quantization
from search_spaces.history import TrialHistory
from search_spaces.language import Cell
from search_spaces.loading import nearest
from search_spaces.peft_rows import PEFT
from search_spaces.plugins import all_identities
from search_spaces.records import SEEDS_PER_SEARCH, Outcome, TestResult, Trial, training_semantics
from search_spaces.redaction import CleanRecords, clean_tracebacks
from trainables.methods.peft_row import installed_peft

DESCRIPTION = "Train the winner of one cell once more, alone, and print its test scores beside the recorded ones."


@dataclass(frozen=True, kw_only=True)
class Final:
    """The winner of a search of the cell with one seed. `outcome` is None if this seed is not in the ledger or has not ended."""

    trial: Trial
    outcome: Outcome | None


@dataclass(frozen=True, kw_only=True)
class Record:
    """The finals of one cell from the ledger, by search and seed, and the manifest of the sweep in `folder`."""

    folder: Path
    manifest: Mapping[str, Any]
    cell: Cell
    finals: tuple[Final, ...]

    @property
    def searches(self) -> list[int]:
        """The numbers of the cell's searches that have finals here, from 0."""
        return sorted({final.trial.search for final in self.finals})


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m orchestrator.reproduce", description=DESCRIPTION, allow_abbrev=False
    )
    add_arguments(parser)
    return start(parse(parser, argv))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, metavar="OUT/SWEEP", help="the sweep's folder, with its ledger.jsonl")
    parser.add_argument("cell", metavar="MODEL/TASK/METHOD", help="as in the report's table 'trace'")
    parser.add_argument(
        "--seed", type=_seed, metavar="N", help="train only this seed; default: those of the cell's finals"
    )


def start(arguments: argparse.Namespace) -> int:
    """Train the finals that the arguments name, print their scores and return the exit code."""
    handler = logging.StreamHandler()
    handler.addFilter(CleanRecords())
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    return exit_code_of(lambda: _print_scores(arguments))


def _print_scores(arguments: argparse.Namespace) -> int:
    record = read_cell(arguments.folder, arguments.cell)
    for line in _lines(record, chosen(record, arguments.seed)):
        print(line, flush=True)
    return exit_codes.COMPLETE


def read_cell(folder: Path, cell: str) -> Record:
    """Read a cell, named "model/task/label", from a sweep's folder. If it has no finals yet, its first one is derived.

    Raises ValueError if there is no ledger, no such cell or no winner yet; Damaged if the ledger is damaged.
    """
    history = read_history(folder)
    if not history.openings:
        raise ValueError(f"{folder}: there is no sweep; give the folder with its ledger.jsonl, OUT/SWEEP")
    manifest = history.manifest
    winners = [history.trial(won).trial for key, won in sorted(history.winners.items()) if str(key[0]) == cell]
    if not winners:
        _refuse_cell(folder, cell, manifest)
    known = [each for each in history.trials.values() if each.trial.phase == "final"]
    finals = [final for winner in winners for final in _finals_of(winner, known, manifest)]
    return Record(folder=folder, manifest=manifest, cell=winners[0].cell, finals=tuple(finals))


def _finals_of(winner: Trial, known: Sequence[TrialHistory], manifest: Mapping[str, Any]) -> list[Final]:
    """Return the finals of the winner of one search, by seed. If it has none yet, its first one is derived."""
    own = (winner.search_key, winner.hyperparameters)
    found = [each for each in known if (each.trial.search_key, each.trial.hyperparameters) == own]
    finals = {each.trial.seed: Final(trial=each.trial, outcome=each.outcome) for each in found}
    return [final for _, final in sorted(finals.items())] or [_first_final(winner, manifest)]


def _first_final(winner: Trial, manifest: Mapping[str, Any]) -> Final:
    """Return the first final that a search would train: the winner with the first seed after those of its trials."""
    seed = manifest["seed"] + SEEDS_PER_SEARCH * winner.search + manifest["budget"].get("search_seeds", 1)
    return Final(trial=replace(winner, phase="final", seed=seed), outcome=None)


def chosen(record: Record, seed: int | None) -> tuple[Final, ...]:
    """Return the finals to train: all recorded ones if `seed` is None, else the one with this seed, recorded or not."""
    if seed is None:
        return record.finals
    found = tuple(final for final in record.finals if final.trial.seed == seed)
    return found or (Final(trial=replace(record.finals[0].trial, seed=seed), outcome=None),)


def train(record: Record, trial: Trial, checkpoints: Path) -> tuple[Outcome, TestResult]:
    """Train one trial from scratch, alone, and return its outcome and its test result.

    Its checkpoint is written to a folder in `checkpoints`, which must not have one of this trial.

    Raises ValueError if the model, the tokens file or the version of the training code differs from the sweep's.
    """
    from trainables.worker.device_worker import InProcessTrial, open_device_worker

    check_semantics(trial)
    check_quantization(trial.recipe)
    job = {
        "id": trial.id,
        "trial": replace(trial, ablated=False).to_json(),  # the ablation map is not compared
        "source": record.manifest["models"][trial.cell.model]["source"],
        "data": str(tokens_of(record, trial)),
        "checkpoints": str(checkpoints),
    }
    own = InProcessTrial(open_device_worker(on_gpus(record)), job)
    report = own.next_report()
    while not report["outcome"]:
        report = own.next_report()
    own.remove()
    return Outcome.from_json(report["outcome"]), TestResult.from_json(report["test"])


def check_semantics(trial: Trial) -> None:
    """Raise ValueError if the trial was trained with another version of the training code (`training_semantics`), or of a package
    that offers its method, task or model family."""
    here = {f"{package} {version}" for package, version in {**all_identities(), PEFT: installed_peft()}.items()}
    missing = [each for each in trial.plugin.split(", ") if each and each not in here]
    if missing:
        raise ValueError(f"trial {trial.id} was trained with the package {missing[0]}, which is not installed here")
    current = training_semantics(trial.method, trial.recipe.precision)
    if trial.semantics != current:
        raise ValueError(
            f"trial {trial.id} was trained with version {trial.semantics} of the training code, and this is version "
            f"{current}: check out the commit that the report names"
        )


def tokens_of(record: Record, trial: Trial) -> Path:
    """Return the path of the tokens file that this trial was trained on, in the folder `tokens` next to the sweep's folder.

    Raises ValueError if no file there has the same data fingerprint, tokenizer and maximum length.
    """
    from trainables.backbone.models import resolve
    from trainables.tasks import tokens
    from trainables.tasks.forms.regression import REGRESSION

    facts = record.manifest["tasks"][trial.cell.task]
    if facts["score"] in REGRESSION.metrics and not facts.get("targets"):
        raise ValueError(
            f"{trial.cell} was trained on targets that were not standardised, as is done since; check out the commit that the "
            "report names"
        )
    model, cell = resolve(record.manifest["models"][trial.cell.model]["source"]), trial.cell
    folder = record.folder.parent / "tokens"
    for path in sorted(folder.glob(f"{cell.task}-*.safetensors")):
        try:
            data = tokens.read(path)
        except tokens.DamagedTokens:  # or written in an earlier format: the sweep's command makes it again
            continue
        if data.fingerprint == trial.split:
            made = tokens.place(data.task, trial.split, model.path, trial.recipe.max_length, folder)
            if made == path:
                return path
    raise ValueError(
        f"{folder} has no file of task {cell.task!r} with the data that {cell} was trained on (fingerprint {trial.split}); "
        "the sweep's command makes it again: "
        f"{record.manifest['command']}"
    )


def on_gpus(record: Record) -> bool:
    """Return whether the sweep was trained on GPUs."""
    return "GPU" in record.manifest["device"]


def _lines(record: Record, finals: Sequence[Final]) -> Iterator[str]:
    """Train the finals and yield the output: a header, a line per final, and the means. Scores are in percent."""
    metric = record.manifest["tasks"][record.cell.task]["score"]
    for number in dict.fromkeys(final.trial.search for final in finals):
        first_of_search = next(final.trial for final in finals if final.trial.search == number)
        settings = ", ".join(f"{name} = {value}" for name, value in first_of_search.hyperparameters.items())
        yield f"{record.cell}{f', search {number + 1}' if len(record.searches) > 1 else ''}: {settings}"
    yield from _differences(record)
    yield f"  seed  trial           {metric}, %: recorded  retrained  predictions that differ"
    pairs = []
    for final in finals:
        with tempfile.TemporaryDirectory() as checkpoints:
            outcome, test = train(record, final.trial, Path(checkpoints))
        score = final.outcome.metrics.get(metric) if final.outcome else None
        pairs.append((score, outcome.metrics[metric]))
        first = "not there" if score is None else f"{score:.4f}"
        changed = _changed(record, final, test)
        yield f"  {final.trial.seed:4d}  {final.trial.id}  {first:>{len(metric) + 11}}  {pairs[-1][1]:9.4f}  {changed}"
    before, now = (_mean(list(values)) for values in zip(*pairs, strict=True))
    yield f"  mean ± standard deviation over seeds: {before} recorded, {now} retrained (percent)"


def _differences(record: Record) -> Iterator[str]:
    """Yield a line for each difference from the sweep's training that may change the last digits of a score.

    These are other versions of torch, transformers or numpy, and training on GPUs.
    """
    from importlib import metadata

    for name, version in record.manifest["versions"].items():
        if name in ("torch", "transformers", "numpy") and metadata.version(name) != version:
            yield f"  {name} was {version} and is {metadata.version(name)}: the last digits may differ"
    if on_gpus(record):
        yield (
            f"  the sweep ran on {record.manifest['device']}, where several trials may have been trained in one batch; here the "
            "trial is trained alone, so the last digits may differ"
        )


def _changed(record: Record, final: Final, test: TestResult) -> str:
    """Return how many test predictions differ from the recorded ones, as "3 of 408"; "unknown" if none are recorded."""
    path = record.folder / final.outcome.predictions if final.outcome and final.outcome.predictions else None
    if path is None or not path.is_file():
        return "unknown"
    before = json.loads(path.read_text(encoding="utf-8"))["predictions"]
    return f"{sum(a != b for a, b in zip(before, test.predictions, strict=True))} of {len(before)}"


def _mean(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return "nothing"
    return f"{fmean(known):.2f}" + (f" ± {stdev(known):.2f}" if len(known) > 1 else "")


def _refuse_cell(folder: Path, cell: str, manifest: Mapping[str, Any]) -> None:
    cells = [f"{m}/{t}/{label}" for m in manifest["models"] for t in manifest["tasks"] for label in manifest["methods"]]
    if cell in cells:
        raise ValueError(f"cell {cell!r} of {folder} has no winner yet; continue the sweep with: {manifest['command']}")
    raise ValueError(f"cell {cell!r} is not in {folder}: {nearest(cell, cells)}; a cell is MODEL/TASK/METHOD")


def _seed(text: str) -> int:
    if not (text.isdecimal() and text.isascii()) or int(text) >= 2**32:
        raise argparse.ArgumentTypeError(f"{text[:80]!r}: must be a whole number from 0 to {2**32 - 1}")
    return int(text)


if __name__ == "__main__":
    clean_tracebacks()
    sys.exit(main())
