"""What all commands share: exceptions become an exit code and one message, and unknown words get the nearest known one."""

from __future__ import annotations

import argparse
import errno
import logging
import os
import re
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import NoReturn

from orchestrator import exit_codes
from orchestrator.ledger import Damaged, Held
from orchestrator.lost_outputs import drop_lost_outputs
from search_spaces.loading import nearest
from search_spaces.redaction import clean, printable
from trainables.backbone.hub import MissingModel
from trainables.tasks.task_data import MissingData


def exit_code_of(command: Callable[[], int], *, go_on: str = "") -> int:
    """Run a command and return its exit code. An exception for which there is a code is printed as one message to stderr.

    `go_on`: the command line that continues the work, for the message after an interruption.
    """
    advice = f"; start or continue it with: {go_on}" if go_on else ""
    try:
        return command()
    except exit_codes.Preempted:
        return complain(f"terminated{advice}", exit_codes.PREEMPTED)
    except KeyboardInterrupt:
        return complain(f"interrupted{advice}", exit_codes.INTERRUPTED)
    except ValueError as error:
        return complain(error, exit_codes.BAD_INPUT)
    except (MissingData, MissingModel, exit_codes.EnvironmentUnfit, OSError) as error:
        too_long = isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG
        return complain(error, exit_codes.BAD_INPUT if too_long else exit_codes.ENVIRONMENT)
    except Damaged as error:
        return complain(error, exit_codes.DAMAGED_STATE)
    except Held as error:
        return complain(error, exit_codes.HELD)
    except exit_codes.ClusterLost as error:
        return complain(error, exit_codes.CLUSTER_LOST)
    finally:
        drop_lost_outputs()  # the interpreter flushes them at its end, and would change the exit code


def complain(error: BaseException | str, code: int) -> int:
    """Print an error to stderr, without secrets and with the middle of very long words left out, and return the code."""
    drop_lost_outputs()
    if os.environ.get("ORCHESTRATOR_DEBUG"):
        print(clean(traceback.format_exc()), file=sys.stderr)
    logging.shutdown()
    text = re.sub(r"\S{400,}", lambda word: f"{word[0][:100]}...{word[0][-100:]}", clean(error))
    print(f"error: {text}", file=sys.stderr)
    return code


def print_text(text: str) -> None:
    """Write to standard output. A reader that closes it early, such as `head`, has seen what it wanted: that is no error."""
    try:
        print(printable(text), flush=True)
    except BrokenPipeError:
        drop_lost_outputs()  # the interpreter would write the rest at its end and complain


def parse(parser: argparse.ArgumentParser, words: Sequence[str] | None) -> argparse.Namespace:
    """Parse a command line. Ends the process with code 2 for an unknown option, with the most similar ones in the message."""
    arguments, unknown = parser.parse_known_args(words)
    if unknown:
        refuse_option(parser, unknown[0])
    return arguments


def refuse_option(parser: argparse.ArgumentParser, word: str) -> NoReturn:
    """End the process with code 2: `word` is no option of this parser."""
    options = [option for action in parser._actions for option in action.option_strings if option.startswith("--")]
    parser.error(f"{word!r} is no option: {nearest(word.partition('=')[0], options)}")
