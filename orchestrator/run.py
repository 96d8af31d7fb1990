"""The command `run`: `python -m orchestrator.run --space NAME --gpus N`, and the verbs `run` and `plan` of `peft-sweep`.

Checks the options, then calls the driver. Ray and torch are imported only if a sweep is really started. With the environment
variable ORCHESTRATOR_DEBUG=1, errors are printed with their traceback.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from orchestrator import exit_codes
from orchestrator.arguments import DESCRIPTION, EXIT_CODES, KINDS, add_arguments, command_of, options_of
from orchestrator.command_line import exit_code_of, parse, print_text
from orchestrator.execution.gpus import find_gpus, with_present_gpus
from orchestrator.planning import preflight
from orchestrator.planning.plan import Plan, make_plan
from orchestrator.planning.space_files import load_space
from orchestrator.run_options import RunOptions
from search_spaces.redaction import clean_tracebacks
from trainables.methods import METHODS

ASK_ABOVE = 200  # trials; on a terminal, the user has to confirm larger sweeps


def parser() -> argparse.ArgumentParser:
    """Return the parser. The options must stay as they are: tests/orchestrator/test_cli_frozen.py has the list of them."""
    p = argparse.ArgumentParser(
        prog="python -m orchestrator.run", description=DESCRIPTION, epilog=EXIT_CODES, allow_abbrev=False
    )
    add_arguments(p, gpus=0)
    p.add_argument("--plan", action="store_true", help="print what would run, and stop")
    p.add_argument(
        "--list",
        nargs="?",
        const="all",
        choices=("all", *KINDS),
        metavar="KIND",
        help="print the known spaces, methods, tasks and models, or one kind in detail, and stop",
    )
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code. Raises SystemExit with code 2 if an option is malformed."""
    arguments = parse(parser(), argv)
    if arguments.list:
        return exit_code_of(lambda: print_list(arguments.list))
    return start(arguments)


def start(arguments: argparse.Namespace) -> int:
    """Plan or run the sweep that the arguments describe, and return the exit code."""
    return exit_code_of(lambda: _start(arguments), go_on=command_of(arguments))


def print_list(kind: str) -> int:
    """Print the known spaces, methods, tasks and models, or one `kind` of them."""
    from orchestrator.planning import preview

    print_text(preview.list_text(kind))
    return exit_codes.COMPLETE


def _probe(plan: Plan, options: RunOptions) -> None:
    """Time what no sweep has timed, and say what could not be timed."""
    from orchestrator.planning.probe import probe

    preflight.check(options)
    print("timing a few training steps ...", file=sys.stderr, flush=True)
    for failure in probe(plan, options):
        print(failure, file=sys.stderr)


def _start(arguments: argparse.Namespace) -> int:
    exit_codes.preempt_on_signals()
    if not arguments.space:
        raise ValueError(
            "no space is given: --space is missing; name a space (--list prints them), or a Python or YAML file"
        )
    space = load_space(arguments.space, METHODS)
    if arguments.gpus is None:
        arguments.gpus = _found_gpus(arguments.address)
    options = options_of(arguments)
    plan = make_plan(space, options)
    preflight.check_quantization(plan.space.recipe)
    if arguments.probe:
        _probe(plan, options)
    if arguments.plan or arguments.probe:
        from orchestrator.planning import preview

        print_text(preview.plan_text(plan, options))
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

    return drive(plan, with_present_gpus(options))


def _found_gpus(address: str | None) -> int:
    """Return how many GPUs to use where no number is given, and say so."""
    if address:
        preflight.check_address(address)
    found, sentence = find_gpus(address)
    print(sentence, file=sys.stderr, flush=True)
    return found


if __name__ == "__main__":
    clean_tracebacks()
    sys.exit(main())
