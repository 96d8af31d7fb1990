"""The verb `plan`: prints what a sweep would run and what it takes, as `run --plan` does."""

from __future__ import annotations

import argparse

from orchestrator.verbs import run as run_verb

HELP = "print what a sweep would run, and what it takes"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    run_verb.add_options(parser)
    parser.description = (
        "Print the cells, trials and parameters of a sweep, what it takes and what of it is done; start nothing."
    )
    parser.set_defaults(plan=True)


def run(arguments: argparse.Namespace) -> int:
    return run_verb.run(arguments)
