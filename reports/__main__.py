"""Command line: `python -m reports` writes the report of a sweep, `python -m reports compare A B` compares two sweeps.

All data are read from the MLflow tracking store; the sweep's folder is not needed.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from reports.data.store_address import DamagedResults, StoreError
from search_spaces.redaction import clean_line, clean_tracebacks, passwords_in, register_secret
from search_spaces.tracking_uri import DATABASE, URI_VARIABLE, sqlite_uri

COMPARE = "compare"
DEFAULT_STORE = f"default: {URI_VARIABLE}, if that is set, else runs/{DATABASE}"
DESCRIPTION, COMPARE_DESCRIPTION = "Write the report of a sweep.", "Show two sweeps side by side."
OK, BAD_INPUT, ENVIRONMENT, DAMAGED, INTERRUPTED = 0, 2, 4, 5, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code, as `start` does."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    register_secret(*passwords_in(" ".join(words)))
    if words[:1] == [COMPARE]:
        parser = argparse.ArgumentParser(prog=f"python -m reports {COMPARE}", description=COMPARE_DESCRIPTION)
        add_compare_arguments(parser)
        return start(compare_sweeps, parser.parse_args(words[1:]))
    parser = argparse.ArgumentParser(
        prog="python -m reports", description=DESCRIPTION, epilog=f"{COMPARE} A B: two sweeps side by side"
    )
    add_arguments(parser)
    return start(write_report, parser.parse_args(words))


def start(command: Callable[[argparse.Namespace], Path], options: argparse.Namespace, prefix: str = "reports") -> int:
    """Run `write_report` or `compare_sweeps`, print the path that it returns, and return the exit code.

    `prefix` begins an error message.

    0: the report was written; 2: bad input; 4: the store is missing, unreachable or damaged, or its database driver is not
    installed, or the report cannot be written; 5: results in the store are damaged; 130: interrupted.
    """
    try:
        default = os.environ.get(URI_VARIABLE) or sqlite_uri(Path("runs") / DATABASE)
        options.tracking_uri = options.tracking_uri or default
        print(command(options))
    except ValueError as error:
        return _fail(prefix, error, BAD_INPUT)
    except (StoreError, OSError) as error:
        return _fail(prefix, error, ENVIRONMENT)
    except DamagedResults as error:
        return _fail(prefix, error, DAMAGED)
    except KeyboardInterrupt:
        return _fail(prefix, "interrupted, nothing was written", INTERRUPTED)
    return OK


def write_report(options: argparse.Namespace) -> Path:
    """Write the report and return the path of its summary."""
    from reports.build import build  # imported here, because --help needs neither pandas nor matplotlib
    from reports.data.store import find
    from reports.sections.paper_table import LatexOptions

    columns = tuple(name.strip() for name in options.latex_columns.split(",") if name.strip())
    latex = LatexOptions(metric=options.latex_metric, digits=options.latex_digits, columns=columns)
    sweep = find(options.tracking_uri, options.space, options.sweep)
    return build(options.tracking_uri, sweep, options.out, latex, file_list=options.file_list)


def compare_sweeps(options: argparse.Namespace) -> Path:
    """Write the comparison of two sweeps and return the path of compare.md."""
    from reports import compare
    from reports.data.store import find, read
    from reports.statistics.analysis import AnalyzedSweep, analyze

    def sweep(name: str) -> AnalyzedSweep:
        """Read a sweep by its id in the store, by the address of a store (its newest sweep is taken), or by ADDRESS#id."""
        # The last "#" begins the id, unless a slash follows it: then it belongs to a path.
        address, mark, known = name.rpartition("#")
        if "://" not in name:
            uri, known = options.tracking_uri, name
        else:
            uri, known = (address, known) if mark and "/" not in known else (name, "")
        return analyze(read(uri, find(uri, sweep=known)))

    return compare.write(sweep(options.a), sweep(options.b), options.out)


def add_compare_arguments(parser: argparse.ArgumentParser) -> None:
    for letter in ("a", "b"):
        parser.add_argument(
            letter, metavar=letter.upper(), help="id of a sweep, address of a store (its newest sweep), or ADDRESS#id"
        )
    parser.add_argument("--tracking-uri", default="", help=f"store of sweeps given by id ({DEFAULT_STORE})")
    parser.add_argument("--out", type=Path, default=Path("reports"), help="folder to write to (default: reports)")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--tracking-uri", default="", help=f"sqlite:////absolute/mlflow.db or http://host ({DEFAULT_STORE})"
    )
    parser.add_argument("--space", default="", help="report the newest sweep of this space")
    parser.add_argument("--sweep", default="", help="report this sweep (default: the newest)")
    parser.add_argument("--out", type=Path, default=Path("reports"), help="folder to write to (default: reports)")
    parser.add_argument("--file-list", type=Path, metavar="FILE", help="write the names of the report's files here")
    table = parser.add_argument_group("tables/results.tex")
    table.add_argument(
        "--latex-metric", default="", help="a metric of the test split (default: the score of each task)"
    )
    table.add_argument("--latex-digits", type=int, default=2, choices=range(5), help="decimals of scores (default: 2)")
    table.add_argument(
        "--latex-columns",
        default="",
        metavar="NAMES",
        help="names of tasks, parameters, average and hours, comma-separated (default: parameters, all tasks, average)",
    )


def _fail(prefix: str, error: object, code: int) -> int:
    """Print the error on one line to stderr, without credentials, and return the exit code."""
    print(f"{prefix}: {clean_line(error)}", file=sys.stderr)
    return code


if __name__ == "__main__":
    clean_tracebacks()
    sys.exit(main())
