"""The verb `report`: writes the report of a sweep."""

from __future__ import annotations

import argparse

HELP = "write the report of a sweep"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from reports.__main__ import add_arguments

    add_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    from reports.__main__ import start, write_report

    return start(write_report, arguments, prefix="error")
