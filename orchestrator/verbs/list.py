"""The verb `list`: prints the names that a space may use."""

from __future__ import annotations

import argparse

HELP = "print the known spaces, methods, tasks and models"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from orchestrator.arguments import KINDS

    parser.add_argument(
        "kind",
        nargs="?",
        default="all",
        choices=("all", *KINDS),
        metavar="KIND",
        help=f"one of {', '.join(KINDS)}, in detail",
    )


def run(arguments: argparse.Namespace) -> int:
    from orchestrator.run import print_list

    return print_list(arguments.kind)
