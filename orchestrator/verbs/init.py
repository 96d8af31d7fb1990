"""The verb `init`: looks at a file with texts and labels, and writes a space that compares methods on it."""

from __future__ import annotations

import argparse
import re
import shlex
from pathlib import Path

from orchestrator import program

HELP = "look at your CSV, TSV, JSONL or Parquet file and write a space for it"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, help="the file with a text and a label in each row")
    parser.add_argument(
        "--test", type=Path, metavar="FILE", help="its test file; else one beside it, or a tenth of the rows"
    )
    parser.add_argument(
        "--text", default="", metavar="COLUMN", help="the column of the texts, if another one than found"
    )
    parser.add_argument("--text-pair", default="", metavar="COLUMN", help="the column of second texts, for pairs")
    parser.add_argument(
        "--label", default="", metavar="COLUMN", help="the column of the labels, if another one than found"
    )
    parser.add_argument("--to", type=Path, metavar="FILE.py", help="where the space is written (default: NAME.py here)")


def run(arguments: argparse.Namespace) -> int:
    """Write the space file, print what was decided, and return the exit code. After an error, nothing is written."""
    from orchestrator.command_line import print_text
    from orchestrator.new_space.draft import make_draft
    from orchestrator.new_space.space_text import decisions, space_text
    from search_spaces.checks import check_name

    target: Path = arguments.to or Path(_name(arguments.file.stem))
    if target.suffix != ".py":
        raise ValueError(f"--to {target}: the file of a space must end in .py")
    check_name("space", target.stem)
    if target.exists():
        raise ValueError(f"{target} exists and is not overwritten: give another one with --to FILE.py, or remove it")
    if not target.absolute().parent.is_dir():
        raise ValueError(f"--to {target}: there is no folder {target.absolute().parent}")
    draft = make_draft(arguments.file, arguments.test, arguments.text, arguments.label, arguments.text_pair)
    words, file = " ".join(program.words()), shlex.quote(str(target))
    commands = f"{words} plan {file} --probe", f"{words} run {file}"
    _write(target, space_text(draft, target, commands))
    print_text("\n".join(decisions(draft, target, commands)))
    return 0


def _write(target: Path, text: str) -> None:
    """Write the space if it can be planned, or else nothing.

    Raises the ValueError of a plan that fails, EnvironmentUnfit if the file cannot be written.
    """
    from orchestrator.exit_codes import EnvironmentUnfit
    from orchestrator.planning.plan import make_plan
    from orchestrator.run_options import RunOptions
    from search_spaces.loading import load
    from trainables.methods import METHODS

    try:
        file = target.open("x", encoding="utf-8")
    except OSError as error:
        raise EnvironmentUnfit(
            f"{target} cannot be written ({error.strerror}); give another place with --to FILE.py"
        ) from None
    with file:
        file.write(text)
    try:
        make_plan(load(str(target), METHODS), RunOptions())
    except BaseException:
        target.unlink()
        raise


def _name(stem: str) -> str:
    """Return a file name for a space, which also names its results."""
    from orchestrator.new_space.draft import without_accents

    name = re.sub(r"[^A-Za-z0-9_-]+", "_", without_accents(stem)).strip("_-")[:60]
    return f"{name or 'space'}.py"
