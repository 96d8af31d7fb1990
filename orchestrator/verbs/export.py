"""The verb `export`: writes the winner of a cell as a folder that other programs load."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

HELP = "write the winner of a cell as a model that peft, transformers or `predict` loads"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("sweep", metavar="OUT/SWEEP", help="the sweep's folder, or its name in the folder runs")
    parser.add_argument("cell", metavar="MODEL/TASK/METHOD", help="as in the report's table 'trace'")
    parser.add_argument("--to", type=Path, required=True, metavar="DIR", help="a new or empty folder for the model")
    parser.add_argument(
        "--seed", type=_seed, metavar="N", help="the final with this seed; default: the best on the validation split"
    )
    parser.add_argument(
        "--retrain", action="store_true", help="train the final once more if its model was not kept (--keep)"
    )


def run(arguments: argparse.Namespace) -> int:
    """Export a final and say where it is and whether it predicts what was recorded.

    Raises ValueError for wrong input, MissingModel or EnvironmentUnfit if the pretrained model is missing or another one,
    Damaged if files of the sweep are damaged.
    """
    from orchestrator import exit_codes, reproduce
    from orchestrator.export import kept_final, writing

    writing.check_target(arguments.to)
    record = reproduce.read_cell(kept_final.find_sweep(arguments.sweep), arguments.cell)
    kept = kept_final.load(record, arguments.seed, arguments.retrain)
    words = ["peft-sweep", "export", arguments.sweep, arguments.cell, "--to", str(arguments.to)]
    words += ["--seed", str(arguments.seed)] if arguments.seed is not None else []
    done = writing.write(kept, arguments.to, shlex.join([*words, *["--retrain"] * arguments.retrain]))
    metric = done.record.task.metrics[0]
    sys.stdout.write(
        f"{arguments.to}: {KINDS[done.record.kind]}\n"
        f"seed {kept.final.trial.seed}, {metric} {kept.outcome.metrics[metric]:.2f} % on the test split; {done.agreement}\n"
        f"predict with: {shlex.join(['peft-sweep', 'predict', str(arguments.to), 'new.csv'])}\n"
    )
    return exit_codes.COMPLETE


KINDS = {
    "peft": "a peft folder, which PeftModel.from_pretrained loads on the pretrained model",
    "transformers": "a transformers folder, which AutoModelForSequenceClassification.from_pretrained loads",
    "own": "named tensors in a safetensors file, which `predict` loads, and no other library",
}


def _seed(text: str) -> int:
    if not (text.isdecimal() and text.isascii()) or int(text) >= 2**32:
        raise argparse.ArgumentTypeError(f"{text[:80]!r}: must be a whole number from 0 to {2**32 - 1}")
    return int(text)
