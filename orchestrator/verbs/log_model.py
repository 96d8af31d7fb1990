"""The verb `log-model`: adds an exported model to the run of its final in MLflow."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

HELP = "add an exported model to MLflow, as a logged model with a signature"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, metavar="DIR", help="a folder that the verb export has written")
    parser.add_argument(
        "--tracking-uri",
        metavar="URI",
        help="the store of the sweep (default: MLFLOW_TRACKING_URI, if that is set, else runs/mlflow.db)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Log the model and say how it is loaded. Raises what `log_model` raises."""
    from orchestrator import exit_codes
    from orchestrator.export.logged_model import log_model
    from orchestrator.planning.preflight import check_tracking
    from search_spaces.tracking_uri import DATABASE, URI_VARIABLE, sqlite_path, sqlite_uri

    variable = URI_VARIABLE if os.environ.get(URI_VARIABLE) and not arguments.tracking_uri else ""
    uri = arguments.tracking_uri or os.environ.get(URI_VARIABLE) or sqlite_uri(Path("runs") / DATABASE)
    check_tracking(uri, variable)
    if uri.startswith("sqlite:") and not sqlite_path(uri).is_file():
        raise exit_codes.EnvironmentUnfit(
            f"there is no tracking store at {sqlite_path(uri)}; name it with --tracking-uri"
        )
    model, known = log_model(uri, arguments.folder)
    sys.stdout.write(f'{"was there already: " if known else ""}mlflow.pyfunc.load_model("models:/{model}")\n')
    return exit_codes.COMPLETE
