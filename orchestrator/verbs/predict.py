"""The verb `predict`: labels and probabilities of an exported model for the texts of a file, as CSV."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import get_args

from search_spaces.file_task import Separator

HELP = "predict the labels of new texts with an exported model"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, metavar="DIR", help="a folder that `export` has written")
    parser.add_argument(
        "file",
        type=Path,
        metavar="FILE",
        help="texts as .csv, .tsv, .jsonl or .parquet, with the columns of the task's files; other columns are ignored",
    )
    parser.add_argument(
        "--to", type=Path, metavar="FILE", help="write the predictions there instead of to the terminal"
    )
    parser.add_argument(
        "--text", metavar="COLUMN", help="the column of the texts, if it has another name than in training"
    )
    parser.add_argument("--text-pair", metavar="COLUMN", help="the column of the second texts, likewise")
    parser.add_argument("--encoding", help="of the file; default: that of the task's files")
    parser.add_argument(
        "--header", type=_columns, metavar="A,B", help="names of the columns of a file without a header line"
    )
    parser.add_argument(
        "--separator",
        choices=tuple(filter(None, get_args(Separator))),
        metavar="CHARACTER",
        help="between the columns; default: that of the task's files",
    )
    parser.add_argument("--base", metavar="MODEL", help="where the pretrained model is, if not where the export says")


def run(arguments: argparse.Namespace) -> int:
    """Write one line per text, in the order of the file.

    Raises ValueError for wrong input, MissingModel or EnvironmentUnfit if the pretrained model is missing or another one,
    Damaged if files of the export are damaged.
    """
    from orchestrator import exit_codes
    from orchestrator.export.prediction import predict

    predict(
        arguments.folder,
        arguments.file,
        to=arguments.to,
        base=arguments.base,
        renamed=(arguments.text, arguments.text_pair),
        encoding=arguments.encoding,
        header=arguments.header,
        separator=arguments.separator,
    )
    return exit_codes.COMPLETE


def _columns(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(","))
    if not all(names) or len(set(names)) != len(names):
        raise argparse.ArgumentTypeError(f"{text!r}: give different names, separated by commas")
    return names
