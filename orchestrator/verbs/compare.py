"""The verb `compare`: shows two sweeps side by side."""

from __future__ import annotations

import argparse

HELP = "show two sweeps side by side"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from reports.__main__ import add_compare_arguments

    add_compare_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    from reports.__main__ import compare_sweeps, start

    return start(compare_sweeps, arguments, prefix="error")
