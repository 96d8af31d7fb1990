"""Command line: `python -m reports` writes the report of a sweep from its tracking store alone."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from reports.address import StoreError, redact

OK, BAD_INPUT, ENVIRONMENT, INTERRUPTED = 0, 2, 4, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code: 0 written, 2 bad input, 4 no such store, 130 interrupted."""
    options = _parser().parse_args(arguments)
    uri = options.tracking_uri or f"sqlite:///{Path.cwd() / 'runs' / 'mlflow.db'}"
    try:
        from reports.build import build  # --help needs neither pandas nor matplotlib
        from reports.store import find

        print(build(uri, find(uri, options.space, options.sweep), options.out))
    except ValueError as error:
        return _fail(error, BAD_INPUT)
    except (StoreError, OSError) as error:
        return _fail(error, ENVIRONMENT)
    except KeyboardInterrupt:
        return _fail("interrupted, nothing was written", INTERRUPTED)
    return OK


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m reports", description="Write the report of a sweep.")
    parser.add_argument(
        "--tracking-uri", default="", help="sqlite:////absolute/mlflow.db or http://host (default: runs/mlflow.db)"
    )
    parser.add_argument("--space", default="", help="report the newest sweep of this space")
    parser.add_argument("--sweep", default="", help="report this sweep (default: the newest)")
    parser.add_argument("--out", type=Path, default=Path("reports"), help="folder to write to (default: reports)")
    return parser


def _fail(error: object, code: int) -> int:
    message = " ".join(redact(str(error)).split())
    print(f"reports: {message}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
