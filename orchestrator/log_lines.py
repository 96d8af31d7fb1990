"""The form of log lines: time and message, warnings and errors named as such, long lines wrapped on a terminal."""

from __future__ import annotations

import logging
import sys

from rich.console import Console
from rich.logging import RichHandler

from search_spaces.redaction import CleanRecords


class LineFormatter(logging.Formatter):
    """Formats a record as "17:05:12 message", or "17:05:12 WARNING: message" from that level on."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(message)s", "%H:%M:%S")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802, the name is logging's
        if record.levelno >= logging.WARNING:
            record.message = f"{record.levelname}: {record.message}"
        return super().formatMessage(record)


def set_up_logging(console: Console) -> None:
    """Configure logging for the process: from level INFO for this project, from WARNING for other packages."""
    if console.is_terminal:
        # It prints above the live display.
        handler: logging.Handler = RichHandler(
            console=console, show_time=False, show_level=False, show_path=False, markup=False
        )
    else:
        handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(LineFormatter())
    handler.addFilter(CleanRecords())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.captureWarnings(True)
    for package in ("orchestrator", "trainables", "search_spaces"):
        logging.getLogger(package).setLevel(logging.INFO)
