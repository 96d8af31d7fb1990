"""The verb `doctor`: checks what a sweep needs on this machine, and says how to mend what is wrong."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

HELP = "check GPU, packages, disk, network, Ray and MLflow on this machine"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Check what a sweep needs on this machine. A warning can be lived with; with a problem, the exit code is 4."
    )
    parser.add_argument("--quick", action="store_true", help="do not start Ray")
    parser.add_argument(
        "--out", type=Path, default=Path("runs"), metavar="DIR", help="where results will go (default runs)"
    )
    parser.add_argument(
        "--tracking-uri", metavar="URI", help="the MLflow store (default: MLFLOW_TRACKING_URI, or a file in OUT)"
    )


def run(arguments: argparse.Namespace) -> int:
    from orchestrator import exit_codes
    from orchestrator.command_line import print_text
    from orchestrator.machine_checks import CHECKS, Destinations, start_ray
    from search_spaces.redaction import clean_line

    exit_codes.preempt_on_signals()
    to = Destinations(out=arguments.out, tracking_uri=arguments.tracking_uri or os.environ.get("MLFLOW_TRACKING_URI"))
    problems = 0
    for check in (*CHECKS, *(() if arguments.quick else (start_ray,))):
        for found in check(to):
            problems += found.level == "problem"
            advice = f"; {found.advice}" if found.advice else ""
            print_text(f"{found.level:<8} {found.name:<10} {clean_line(found.text + advice)}")
    return exit_codes.ENVIRONMENT if problems else exit_codes.COMPLETE
