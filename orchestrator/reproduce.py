"""Re-creates the number of one cell: `python -m orchestrator.reproduce RUNS/SWEEP CELL [--seed N]`.

Trains the cell's winner once more on the seeds of its finals, alone and in this process, without Ray, and prints each test
score beside the one on record. Reads the sweep's folder and the tokens beside it; writes nothing there.
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
from orchestrator.ledger import Damaged, read
from orchestrator.planning.forecast import winners
from search_spaces.language import Cell
from search_spaces.loading import nearest
from search_spaces.records import TRAINING_SEMANTICS, Outcome, TestResult, Trial
from trainables.backbone.models import MissingModel


@dataclass(frozen=True, kw_only=True)
class Final:
    """One seed of a cell's winner. `outcome` None: that seed is not on record, or has not ended."""

    trial: Trial
    outcome: Outcome | None


@dataclass(frozen=True, kw_only=True)
class Record:
    """What a sweep's ledger says about one cell: its finals, by seed, and the sweep's manifest."""

    folder: Path
    manifest: Mapping[str, Any]
    cell: Cell
    finals: tuple[Final, ...]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    arguments = _parser().parse_args(argv)
    logging.basicConfig(level=logging.WARNING)
    try:
        record = read_cell(arguments.folder, arguments.cell)
        for line in _lines(record, chosen(record, arguments.seed)):
            print(line, flush=True)
    except ValueError as error:
        return _complain(error, exit_codes.BAD_INPUT)
    except (MissingModel, OSError) as error:
        return _complain(error, exit_codes.ENVIRONMENT)
    except Damaged as error:
        return _complain(error, exit_codes.DAMAGED_STATE)
    return exit_codes.COMPLETE


def read_cell(folder: Path, cell: str) -> Record:
    """Find a cell, "model/task/method label", in a sweep's folder. Raises ValueError for what is not there."""
    records = read(folder)
    if not records:
        raise ValueError(f"{folder}: there is no sweep; give the folder with its ledger.jsonl, OUT/SWEEP")
    manifest = [record for record in records if record["event"] == "sweep"][-1]["manifest"]
    won = {str(each): trial_id for each, trial_id in winners(records).items()}
    trials = {r["id"]: Trial.from_json(r["trial"]) for r in records if r["event"] == "asked"}
    if cell not in won:
        _refuse_cell(folder, cell, manifest)
    winner = trials[won[cell]]
    outcomes = {r["id"]: Outcome.from_json(r["outcome"]) for r in records if r["event"] == "ended"}
    finals = {
        t.seed: Final(trial=t, outcome=outcomes.get(t.id))
        for t in trials.values()
        if t.phase == "final" and (t.cell, t.hyperparameters) == (winner.cell, winner.hyperparameters)
    }
    by_seed = tuple(final for _, final in sorted(finals.items())) or (_first_final(winner, manifest),)
    return Record(folder=folder, manifest=manifest, cell=winner.cell, finals=by_seed)


def _first_final(winner: Trial, manifest: Mapping[str, Any]) -> Final:
    """What would come first after the seeds of the search."""
    seed = manifest["seed"] + manifest["budget"].get("search_seeds", 1)
    return Final(trial=replace(winner, phase="final", seed=seed), outcome=None)


def chosen(record: Record, seed: int | None) -> tuple[Final, ...]:
    """The finals to train: those on record, or the one with this seed, whether it is on record or not."""
    if seed is None:
        return record.finals
    found = tuple(final for final in record.finals if final.trial.seed == seed)
    return found or (Final(trial=replace(record.finals[0].trial, seed=seed), outcome=None),)


def train(record: Record, trial: Trial) -> tuple[Outcome, TestResult]:
    """Train this trial from its start, alone. Raises ValueError when the model or the tokens are not those of the sweep."""
    from trainables.worker.device_worker import InProcessTrial, open_device_worker

    check_semantics(trial)
    with tempfile.TemporaryDirectory() as checkpoints:
        job = {
            "id": trial.id,
            "trial": replace(trial, ablated=False).to_json(),  # nobody asks for the map
            "source": record.manifest["models"][trial.cell.model]["source"],
            "data": str(tokens_of(record, trial)),
            "checkpoints": checkpoints,
        }
        own = InProcessTrial(open_device_worker(on_gpus(record)), job)
        report = own.next_report()
        while not report["outcome"]:
            report = own.next_report()
        own.remove()
    return Outcome.from_json(report["outcome"]), TestResult.from_json(report["test"])


def check_semantics(trial: Trial) -> None:
    current = TRAINING_SEMANTICS[trial.recipe.precision]
    if trial.semantics != current:
        raise ValueError(
            f"trial {trial.id} was trained by version {trial.semantics} of the training, and this code is version "
            f"{current}: check out the commit that the report names"
        )


def tokens_of(record: Record, trial: Trial) -> Path:
    """The tokenised task as this trial saw it, beside the sweep's folder."""
    from trainables.backbone.models import resolve
    from trainables.tasks import tokens

    model, cell = resolve(record.manifest["models"][trial.cell.model]["source"]), trial.cell
    folder = record.folder.parent / "tokens"
    for path in sorted(folder.glob(f"{cell.task}-*.safetensors")):
        data = tokens.read(path)
        if data.fingerprint == trial.split:
            made = tokens.place(data.task, trial.split, model.path, trial.recipe.max_length, folder)
            if made == path:
                return path
    raise ValueError(
        f"{folder} does not hold task {cell.task!r} as {cell} saw it ({trial.split}); the sweep's command makes it again: "
        f"{record.manifest['command']}"
    )


def on_gpus(record: Record) -> bool:
    return "GPU" in record.manifest["device"]


def _lines(record: Record, finals: Sequence[Final]) -> Iterator[str]:
    metric = record.manifest["tasks"][record.cell.task]["score"]
    settings = ", ".join(f"{name} = {value}" for name, value in finals[0].trial.hyperparameters.items())
    yield f"{record.cell}: {settings}"
    yield from _differences(record)
    yield f"  seed  trial             {metric}: on record      again  predictions that differ"
    pairs = []
    for final in finals:
        outcome, test = train(record, final.trial)
        score = final.outcome.metrics.get(metric) if final.outcome else None
        pairs.append((score, outcome.metrics[metric]))
        first = "not there" if score is None else f"{score:.4f}"
        changed = _changed(record, final, test)
        yield f"  {final.trial.seed:4d}  {final.trial.id}  {first:>{len(metric) + 11}}  {pairs[-1][1]:9.4f}  {changed}"
    before, now = (_mean(list(values)) for values in zip(*pairs, strict=True))
    yield f"  mean ± standard deviation over seeds: {before} on record, {now} again"


def _differences(record: Record) -> Iterator[str]:
    """What is not as it was, so that the last digits may be others."""
    from importlib import metadata

    for name, version in record.manifest["versions"].items():
        if name in ("torch", "transformers", "numpy") and metadata.version(name) != version:
            yield f"  {name} was {version} and is {metadata.version(name)}: the last digits may differ"
    if on_gpus(record):
        yield f"  trained on {record.manifest['device']}, beside other trials or alone: the last digits may differ"


def _changed(record: Record, final: Final, test: TestResult) -> str:
    """How many of the test predictions are not those on record."""
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


def _complain(error: Exception, code: int) -> int:
    print(f"error: {error}", file=sys.stderr)
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m orchestrator.reproduce",
        description="Train the winner of one cell once more, alone, and print its test scores beside those on record.",
        allow_abbrev=False,
    )
    parser.add_argument("folder", type=Path, metavar="OUT/SWEEP", help="the sweep's folder, with its ledger.jsonl")
    parser.add_argument("cell", metavar="MODEL/TASK/METHOD", help="as the report's trace names it")
    parser.add_argument("--seed", type=_seed, metavar="N", help="this seed alone; default: those of the cell's finals")
    return parser


def _seed(text: str) -> int:
    if not (text.isdecimal() and text.isascii()) or int(text) >= 2**32:
        raise argparse.ArgumentTypeError(f"{text[:80]!r}: must be a whole number from 0 to {2**32 - 1}")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
