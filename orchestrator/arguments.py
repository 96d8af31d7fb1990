"""The options of a sweep on the command line: names, types, help, and the command line that repeats a call."""

from __future__ import annotations

import argparse
import os
import re
import shlex
from pathlib import Path
from typing import NamedTuple

from orchestrator.run_options import KEEPS, RunOptions
from orchestrator.search.durations import seconds
from search_spaces.redaction import HARMLESS_QUERY, holds_password, redact
from search_spaces.tracking_uri import (
    EXPERIMENT_VARIABLE,
    SYSTEM_METRICS_VARIABLE,
    URI_VARIABLE,
    asks_for_system_metrics,
)

EXIT_CODES = (
    "exit codes: 0 complete, 2 bad input, 3 too many trials failed, 4 environment, 5 damaged state, "
    "6 held by another driver, 7 cluster lost, 75 preempted, 130 interrupted"
)
DESCRIPTION = (
    "Search every (model, task, method) cell of a space with an equal budget, re-train the winners on fresh "
    "seeds, and write reports/summary.md. Stopped at any moment, the same command continues."
)
# Where checkpoints can be kept other than in a folder: schemes of addresses that pyarrow opens.
STORAGE = ("s3", "gs", "file")
MOST_GPUS = 4096
# The kinds of names that are listed.
KINDS = ("spaces", "methods", "tasks", "models")
# The words before the options in a command that repeats a sweep.
PROGRAM = ("python", "-m", "orchestrator.run")
# What decides only what is printed is no part of that command.
_NOT_REPEATED = ("plan", "probe", "list", "yes", "verb", "program")


class GpuRange(NamedTuple):
    """A value of --gpus such as 4..32."""

    least: int
    most: int

    def __str__(self) -> str:
        return f"{self.least}..{self.most}"


def add_arguments(parser: argparse.ArgumentParser, *, gpus: int | None) -> None:
    """Add the options of a sweep. They must stay as they are: tests/orchestrator/test_cli_frozen.py has the list of them.

    `gpus` is the number of GPUs if --gpus is not given; None: those that are found.
    """
    parser.set_defaults(program=PROGRAM)
    # The order of the options is that of the words in a recorded command.
    p, machine = parser.add_argument_group("the space"), parser.add_argument_group("machine and time")
    p.add_argument(
        "--space",
        type=given,
        metavar="NAME|FILE",
        help="a space of search_spaces/spaces, or a Python or YAML file of your own",
    )
    machine.add_argument(
        "--gpus",
        type=_gpus,
        default=gpus,
        metavar="N|N..M",
        help=f"use N GPUs; N..M: as many as there are, up to M, waiting for N on a cluster; 0 trains on the CPU (default "
        f"{'all that are found' if gpus is None else gpus})",
    )
    p.add_argument("--models", type=_names, metavar="A,B", help="these models instead of the space's")
    p.add_argument("--tasks", type=_names, metavar="A,B", help="only these tasks of the space")
    p.add_argument(
        "--methods",
        type=_names,
        metavar="A,B",
        help="only these methods of the space; known methods that it lacks are added",
    )
    p.add_argument(
        "--trials", type=_whole, metavar="N", help="configurations per cell; the report names a reduced number"
    )
    p.add_argument(
        "--seeds", type=_whole, metavar="N", help="fresh seeds for each winner; the report names a reduced number"
    )
    p.add_argument(
        "--epochs", type=_whole, metavar="N", help="most epochs of a trial; the report names a reduced number"
    )
    p.add_argument(
        "--train-examples",
        type=_whole,
        metavar="N",
        help="most training examples of a task, 0 for all; the report names a reduced number",
    )
    p.add_argument(
        "--set",
        type=_setting,
        nargs="+",
        action="extend",
        default=[],
        metavar="PATH=VALUE",
        help="other values of the space, such as recipe.patience=3, methods.adapter.r=16 or "
        "'search.lr=choice(1e-4, 1e-3)'; the report names them",
    )
    p.add_argument(
        "--precision",
        type=given,
        metavar="fp32|bf16|nf4",
        help="of matrix products: bf16 is faster and slightly less exact; nf4 also stores the frozen linear maps in 4 bits; the "
        "report names it",
    )
    p = machine
    p.add_argument(
        "--trials-per-gpu",
        type=_per_gpu,
        default=0,
        metavar="auto|N",
        help="trials that share a GPU, or with --gpus 0 a core (default auto: as many as fill a GPU, one on a core)",
    )
    p.add_argument(
        "--budget",
        type=_time,
        metavar="TIME",
        help="end the searches in time to finish the finals within 90m, 40h or 2d of work on this sweep (noted in the report)",
    )
    p = parser.add_argument_group("data and results")
    p.add_argument(
        "--data-dir", type=_folder, metavar="DIR", help="GLUE as official TSV files; without it, from the Hub"
    )
    p.add_argument(
        "--out", type=_folder, default=Path("runs"), metavar="DIR", help="ledger, checkpoints, mlflow.db (default runs)"
    )
    p.add_argument(
        "--checkpoints",
        type=_place,
        metavar="DIR|URI",
        help="where checkpoints are kept: a folder that all nodes see, s3://BUCKET/PATH or gs://BUCKET/PATH (default: OUT)",
    )
    p.add_argument(
        "--report", type=_folder, default=Path("reports"), metavar="DIR", help="where the report goes (default reports)"
    )
    p.add_argument(
        "--keep",
        choices=KEEPS,
        default="best",
        help="finals of each cell whose model stays on disk for export: all, the best by validation score (default), or none",
    )
    p.add_argument(
        "--tracking-uri",
        type=given,
        metavar="URI",
        help=f"an MLflow server instead of OUT/mlflow.db (default: {URI_VARIABLE}, if that is set)",
    )
    p.add_argument(
        "--experiment",
        type=given,
        metavar="NAME",
        help=f"MLflow experiment of a new sweep (default: {EXPERIMENT_VARIABLE}, else the space's name)",
    )
    p.add_argument(
        "--system-metrics",
        action="store_true",
        help=f"record CPU, memory, disk and GPUs of this machine in MLflow (also with {SYSTEM_METRICS_VARIABLE}=true)",
    )
    machine.add_argument(
        "--address", type=given, metavar="HOST:PORT", help="join this Ray cluster instead of starting one"
    )
    p = parser.add_argument_group("before it starts")
    p.add_argument(
        "--probe",
        action="store_true",
        help="like --plan, after timing a few training steps of what no sweep in OUT has timed (about a minute)",
    )
    p.add_argument("--yes", action="store_true", help="do not ask before a large sweep")


def options_of(arguments: argparse.Namespace) -> RunOptions:
    return RunOptions(
        models=arguments.models,
        tasks=arguments.tasks,
        methods=arguments.methods,
        num_configurations=arguments.trials,
        final_seeds=arguments.seeds,
        epochs=arguments.epochs,
        precision=arguments.precision,
        train_examples=arguments.train_examples,
        settings=tuple(arguments.set),
        gpus=arguments.gpus.most if isinstance(arguments.gpus, GpuRange) else arguments.gpus,
        least_gpus=arguments.gpus.least if isinstance(arguments.gpus, GpuRange) else None,
        trials_per_device=arguments.trials_per_gpu,
        budget=arguments.budget,
        data_dir=arguments.data_dir,
        out=arguments.out,
        checkpoints=arguments.checkpoints,
        report=arguments.report,
        keep=arguments.keep,
        tracking_uri=arguments.tracking_uri or os.environ.get(URI_VARIABLE) or None,
        tracking_from=URI_VARIABLE if os.environ.get(URI_VARIABLE) and not arguments.tracking_uri else "",
        experiment=arguments.experiment or os.environ.get(EXPERIMENT_VARIABLE) or None,
        system_metrics=arguments.system_metrics or asks_for_system_metrics(),
        address=arguments.address,
        command=command_of(arguments),
    )


def command_of(arguments: argparse.Namespace) -> str:
    """Return the shell command that repeats this call, without --plan, --probe, --list and --yes."""
    words = list(arguments.program)
    defaults = _defaults()
    for name, value in vars(arguments).items():
        if name not in _NOT_REPEATED and value is not None and (value != defaults[name] or name == "gpus"):
            option = "--" + name.replace("_", "-")
            if value is True:
                words += [option]
                continue
            if name == "set":
                # One word each, so that a reader of the command can leave out single ones.
                words += [f"{option}={setting}" for setting in value]
                continue
            text = ",".join(value) if isinstance(value, list) else str(value)
            words += [f"{option}={text}"] if text.startswith("-") else [option, text]
    return shlex.join(words)


def _defaults() -> dict[str, object]:
    parser = argparse.ArgumentParser()
    add_arguments(parser, gpus=None)
    return vars(parser.parse_args([]))


def _names(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",")]
    if not all(names) or len(set(names)) != len(names):
        raise argparse.ArgumentTypeError(f"{text!r}: give different names, separated by commas")
    return names


def _setting(text: str) -> str:
    path, mark, _ = given(text).partition("=")
    if not mark or not re.fullmatch(r"[\w.-]+", path):
        raise argparse.ArgumentTypeError(f"{text[:80]!r}: write PATH=VALUE, such as recipe.epochs=5")
    return text


def _whole(text: str) -> int:
    if not re.fullmatch(r"[+-]?[0-9]{1,18}", text):
        raise argparse.ArgumentTypeError(f"{text[:80]!r}: must be a whole number")
    return int(text)


def _gpus(text: str) -> int | GpuRange:
    least, mark, most = text.partition("..")
    found = GpuRange(_whole(least), _whole(most)) if mark else GpuRange(_whole(text), _whole(text))
    if not (0 <= found.least <= found.most <= MOST_GPUS) or (mark and not found.least):
        raise argparse.ArgumentTypeError(
            f"{text[:80]!r}: must be a number between 0 and {MOST_GPUS}, or two such as 4..32, the smaller one first and "
            "at least 1"
        )
    return found if mark else found.most


def _per_gpu(text: str) -> int:
    if text == "auto":
        return 0
    if not re.fullmatch("[0-9]{1,3}", text) or not 1 <= int(text) <= 64:
        raise argparse.ArgumentTypeError(f"{text[:80]!r}: must be auto or a whole number between 1 and 64")
    return int(text)


def _time(text: str) -> str:
    try:
        seconds(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text


def given(text: str) -> str:
    # An unset shell variable arrives as "". Refuse it, since the default would not be what the user meant.
    if not text or not text.isprintable():
        raise argparse.ArgumentTypeError(f"{text[:80]!r}: must be neither empty nor hold control characters")
    return text


def _folder(text: str) -> Path:
    if "://" in text:
        raise argparse.ArgumentTypeError(
            f"{text[:80]!r}: must be a folder of this machine, since a ledger is appended to, which object storage cannot do. "
            "Other nodes need not see it; checkpoints can be kept there with --checkpoints"
        )
    return Path(os.path.expanduser(given(text)))  # unlike Path's, it leaves ~name of an unknown user as it is


def _place(text: str) -> str:
    """Return where checkpoints are kept: an absolute path, or an address without credentials, which is logged and recorded."""
    scheme, mark, rest = given(text).partition("://")
    if not mark:
        return str(_folder(text).absolute())
    shown = repr(redact(text)[:80])
    if "@" in rest or holds_password(text):
        raise argparse.ArgumentTypeError(
            f"{shown}: must not hold a user name or password; credentials come from each node: its role, ~/.aws, "
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or GOOGLE_APPLICATION_CREDENTIALS"
        )
    path, query, settings = rest.partition("?")
    if scheme not in STORAGE or not path.strip("/") or (query and not re.fullmatch(HARMLESS_QUERY, settings)):
        raise argparse.ArgumentTypeError(
            f"{shown}: must be a folder or {' or '.join(f'{each}://...' for each in STORAGE)}; after a ? may come "
            "region=, scheme= and endpoint_override=HOST:PORT, separated by &"
        )
    return text
