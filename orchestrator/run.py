"""The command line: `python -m orchestrator.run --space NAME --gpus N`.

Parses and checks the options, then calls the driver. Ray and torch are imported only if a sweep is really started. With the
environment variable ORCHESTRATOR_DEBUG=1, errors are printed with their traceback.
"""

from __future__ import annotations

import argparse
import errno
import logging
import os
import re
import shlex
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

from orchestrator import exit_codes
from orchestrator.ledger import Damaged, Held
from orchestrator.planning import preflight
from orchestrator.planning.plan import make_plan
from orchestrator.run_options import RunOptions
from orchestrator.search.durations import seconds
from search_spaces.loading import load, nearest
from search_spaces.redaction import clean, clean_tracebacks, printable
from search_spaces.tracking_uri import (
    EXPERIMENT_VARIABLE,
    SYSTEM_METRICS_VARIABLE,
    URI_VARIABLE,
    asks_for_system_metrics,
)
from trainables.backbone.hub import MissingModel
from trainables.methods import METHODS
from trainables.tasks.task_data import MissingData

ASK_ABOVE = 200  # trials; on a terminal, the user has to confirm larger sweeps


def parser() -> argparse.ArgumentParser:
    """Return the parser. The options must stay as they are: tests/test_cli_frozen.py has the list of them."""
    p = argparse.ArgumentParser(
        prog="python -m orchestrator.run",
        description="Search every (model, task, method) cell of a space with an equal budget, re-train the winners on fresh "
        "seeds, and write reports/summary.md. Stopped at any moment, the same command continues.",
        epilog="exit codes: 0 complete, 2 bad input, 3 too many trials failed, 4 environment, 5 damaged state, "
        "6 held by another driver, 7 cluster lost, 75 preempted, 130 interrupted",
        allow_abbrev=False,
    )
    p.add_argument(
        "--space",
        type=_given,
        metavar="NAME|FILE.py",
        help="a space of search_spaces/spaces, or a Python file of your own",
    )
    p.add_argument(
        "--gpus", type=_whole, default=0, metavar="N", help="use at most N GPUs; 0 trains on the CPU (default)"
    )
    p.add_argument("--models", type=_names, metavar="A,B", help="these models instead of the space's")
    p.add_argument("--tasks", type=_names, metavar="A,B", help="only these tasks of the space")
    p.add_argument("--methods", type=_names, metavar="A,B", help="only these methods of the space")
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
        "--precision",
        type=_given,
        metavar="fp32|bf16",
        help="of matrix products: bf16 is faster and slightly less exact; the report names it",
    )
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
    p.add_argument(
        "--data-dir", type=_folder, metavar="DIR", help="GLUE as official TSV files; without it, from the Hub"
    )
    p.add_argument(
        "--out", type=_folder, default=Path("runs"), metavar="DIR", help="ledger, checkpoints, mlflow.db (default runs)"
    )
    p.add_argument(
        "--report", type=_folder, default=Path("reports"), metavar="DIR", help="where the report goes (default reports)"
    )
    p.add_argument(
        "--tracking-uri",
        type=_given,
        metavar="URI",
        help=f"an MLflow server instead of OUT/mlflow.db (default: {URI_VARIABLE}, if that is set)",
    )
    p.add_argument(
        "--experiment",
        type=_given,
        metavar="NAME",
        help=f"MLflow experiment of a new sweep (default: {EXPERIMENT_VARIABLE}, else the space's name)",
    )
    p.add_argument(
        "--system-metrics",
        action="store_true",
        help=f"record CPU, memory, disk and GPUs of this machine in MLflow (also with {SYSTEM_METRICS_VARIABLE}=true)",
    )
    p.add_argument("--address", type=_given, metavar="HOST:PORT", help="join this Ray cluster instead of starting one")
    p.add_argument("--plan", action="store_true", help="print what would run, and stop")
    p.add_argument(
        "--list",
        nargs="?",
        const="all",
        choices=("all", "spaces", "methods", "tasks", "models"),
        metavar="KIND",
        help="print the known spaces, methods, tasks and models, or one kind in detail, and stop",
    )
    p.add_argument("--yes", action="store_true", help="do not ask before a large sweep")
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code. Raises SystemExit with code 2 if an option is malformed."""
    arguments = _parse(argv)
    exit_codes.preempt_on_sigterm()
    try:
        return _main(arguments)
    except exit_codes.Preempted:
        return _complain(f"terminated; start or continue it with: {command_of(arguments)}", exit_codes.PREEMPTED)
    except KeyboardInterrupt:
        return _complain(f"interrupted; start or continue it with: {command_of(arguments)}", exit_codes.INTERRUPTED)
    except ValueError as error:
        return _complain(error, exit_codes.BAD_INPUT)
    except (MissingData, MissingModel, exit_codes.EnvironmentUnfit, OSError) as error:
        too_long = isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG
        return _complain(error, exit_codes.BAD_INPUT if too_long else exit_codes.ENVIRONMENT)
    except Damaged as error:
        return _complain(error, exit_codes.DAMAGED_STATE)
    except Held as error:
        return _complain(error, exit_codes.HELD)
    except exit_codes.ClusterLost as error:
        return _complain(error, exit_codes.CLUSTER_LOST)


def options_of(arguments: argparse.Namespace) -> RunOptions:
    return RunOptions(
        models=arguments.models,
        tasks=arguments.tasks,
        methods=arguments.methods,
        num_configurations=arguments.trials,
        final_seeds=arguments.seeds,
        epochs=arguments.epochs,
        precision=arguments.precision,
        gpus=arguments.gpus,
        trials_per_device=arguments.trials_per_gpu,
        budget=arguments.budget,
        data_dir=arguments.data_dir,
        out=arguments.out,
        report=arguments.report,
        tracking_uri=arguments.tracking_uri or os.environ.get(URI_VARIABLE) or None,
        tracking_from=URI_VARIABLE if os.environ.get(URI_VARIABLE) and not arguments.tracking_uri else "",
        experiment=arguments.experiment or os.environ.get(EXPERIMENT_VARIABLE) or None,
        system_metrics=arguments.system_metrics or asks_for_system_metrics(),
        address=arguments.address,
        command=command_of(arguments),
    )


def command_of(arguments: argparse.Namespace) -> str:
    """Return the shell command that repeats this call, without --plan, --list and --yes."""
    words = ["python", "-m", "orchestrator.run"]
    defaults = vars(parser().parse_args([]))
    for name, value in vars(arguments).items():
        if name not in ("plan", "list", "yes") and (value != defaults[name] or name == "gpus"):
            text = ",".join(value) if isinstance(value, list) else str(value)
            option = "--" + name.replace("_", "-")
            if value is True:
                words += [option]
                continue
            words += [f"{option}={text}"] if text.startswith("-") else [option, text]
    return shlex.join(words)


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    p = parser()
    arguments, unknown = p.parse_known_args(argv)
    if unknown:
        options = ["--" + name.replace("_", "-") for name in vars(arguments)]
        p.error(f"{unknown[0]!r} is no option: {nearest(unknown[0].partition('=')[0], options)}")
    return arguments


def _main(arguments: argparse.Namespace) -> int:
    from orchestrator.planning import preview

    if arguments.list:
        _print(preview.list_text(arguments.list))
        return exit_codes.COMPLETE
    if not arguments.space:
        raise ValueError("--space is missing: name a space (--list prints them) or a Python file")
    if not 0 <= arguments.gpus <= 4096:
        raise ValueError(f"--gpus {arguments.gpus}: must be between 0 and 4096")
    options = options_of(arguments)
    plan = make_plan(load(arguments.space, METHODS), options)
    if arguments.plan:
        _print(preview.plan_text(plan, options))
        return exit_codes.COMPLETE
    preflight.check(options)
    from orchestrator.planning.forecast import check_budget

    check_budget(plan, options)
    if plan.trials > ASK_ABOVE and not arguments.yes and sys.stdin.isatty():
        answer = input(f"{plan.trials} trials of at most {plan.space.recipe.epochs} epochs. Start? [y/N] ")
        if answer.strip().lower() not in ("y", "yes"):
            print("nothing was started")
            return exit_codes.COMPLETE
    from orchestrator.driver import drive

    return drive(plan, options)


def _print(text: str) -> None:
    """Write to standard output. A reader that closes it early, such as `head`, has seen what it wanted: that is no error."""
    try:
        print(printable(text), flush=True)
    except BrokenPipeError:
        # The interpreter would write the rest at its end and complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _names(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",")]
    if not all(names) or len(set(names)) != len(names):
        raise argparse.ArgumentTypeError(f"{text!r}: give different names, separated by commas")
    return names


def _whole(text: str) -> int:
    if not re.fullmatch(r"[+-]?[0-9]{1,18}", text):
        raise argparse.ArgumentTypeError(f"{text[:80]!r}: must be a whole number")
    return int(text)


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


def _given(text: str) -> str:
    # An unset shell variable arrives as "". Refuse it, since the default would not be what the user meant.
    if not text or not text.isprintable():
        raise argparse.ArgumentTypeError(f"{text[:80]!r}: must be neither empty nor hold control characters")
    return text


def _folder(text: str) -> Path:
    return Path(_given(text)).expanduser()


def _complain(error: BaseException | str, code: int) -> int:
    if os.environ.get("ORCHESTRATOR_DEBUG"):
        print(clean(traceback.format_exc()), file=sys.stderr)
    logging.shutdown()
    text = re.sub(r"\S{400,}", lambda word: f"{word[0][:100]}...{word[0][-100:]}", clean(error))
    print(f"error: {text}", file=sys.stderr)
    return code


if __name__ == "__main__":
    clean_tracebacks()
    sys.exit(main())
