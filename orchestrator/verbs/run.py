"""The verb `run`: starts or continues a sweep."""

from __future__ import annotations

import argparse

from orchestrator import program

HELP = "search, train the winners on fresh seeds, write the report; called again, it continues"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_options(parser)
    parser.add_argument("--plan", action="store_true", help="print what would run, and stop")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the space as an argument, and the options that the verbs `run` and `plan` share."""
    from orchestrator import arguments

    example = f"{' '.join(program.words())} run tickets.py --methods full,lora --set recipe.epochs=5"
    parser.description, parser.epilog = f"{arguments.DESCRIPTION} For example: {example}", arguments.EXIT_CODES
    parser.add_argument(
        "space_file", nargs="?", metavar="SPACE", type=arguments.given, help="the same as --space SPACE"
    )
    arguments.add_arguments(parser, gpus=None)
    parser.set_defaults(program=(*program.words(), "run"))


def run(arguments: argparse.Namespace) -> int:
    from orchestrator.run import start

    if arguments.space_file and arguments.space:
        raise ValueError(f"two spaces are given, {arguments.space_file!r} and --space {arguments.space!r}; give one")
    arguments.space = arguments.space_file or arguments.space
    del arguments.space_file
    return start(arguments)
