"""The verb `reproduce`: trains the winner of one cell once more."""

from __future__ import annotations

import argparse

HELP = "train the winner of one cell once more, and compare its test scores with the recorded ones"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from orchestrator.reproduce import add_arguments

    add_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    from orchestrator.reproduce import start

    return start(arguments)
