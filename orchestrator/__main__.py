"""The command line `peft-sweep VERB ...`, also `python -m orchestrator VERB ...`.

Each verb is a module of `orchestrator/verbs` with `HELP`, a line of text; `add_arguments(parser)`; and `run(arguments)`, which
returns the exit code. These modules import what they need inside their functions, so that --help is fast.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import NoReturn

from orchestrator import program
from orchestrator.verbs import (
    compare,
    completion,
    doctor,
    export,
    init,
    log_model,
    plan,
    predict,
    report,
    reproduce,
    run,
)
from orchestrator.verbs import list as list_verb

VERBS: dict[str, ModuleType] = {
    "init": init,
    "run": run,
    "plan": plan,
    "list": list_verb,
    "report": report,
    "compare": compare,
    "reproduce": reproduce,
    "export": export,
    "predict": predict,
    "log-model": log_model,
    "doctor": doctor,
    "completion": completion,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code. Raises SystemExit with code 2 if a verb or an option is malformed."""
    words = list(sys.argv[1:] if argv is None else argv)
    verb = words[0] if words and words[0] in VERBS else ""
    top, parsers = make_parsers(verb)
    if not words:
        top.print_help(sys.stderr)
        return 2
    if not verb and words[0] not in ("-h", "--help", "--version"):
        _refuse(top, words[0])
    _check_options(parsers.get(verb, top), words)
    arguments = top.parse_args(words)
    # Imported only now, so that --help and --version are fast.
    from orchestrator.command_line import exit_code_of
    from search_spaces.redaction import passwords_in, register_secret

    register_secret(*passwords_in(" ".join(words)))
    return exit_code_of(lambda: VERBS[verb].run(arguments))


def make_parsers(*verbs: str) -> tuple[argparse.ArgumentParser, dict[str, argparse.ArgumentParser]]:
    """Return the parser of the whole command line and those of all verbs; only the given verbs get their arguments."""
    top = argparse.ArgumentParser(
        prog=" ".join(program.words()),
        description="Compare fine-tuning methods: search every method with an equal budget, train the winners on fresh seeds.",
        epilog=f"{program.NAME} VERB --help: the options of a verb",
        allow_abbrev=False,
    )
    top.add_argument("--version", action="version", version=f"{program.NAME} {program.version()}")
    added = top.add_subparsers(dest="verb", metavar="VERB", title="verbs", required=True)
    parsers = {}
    for name, module in VERBS.items():
        parsers[name] = added.add_parser(name, help=module.HELP, allow_abbrev=False)
        parsers[name].description = f"{module.HELP[0].upper()}{module.HELP[1:]}."
        if name in verbs:
            module.add_arguments(parsers[name])
    return top, parsers


def _check_options(parser: argparse.ArgumentParser, words: Sequence[str]) -> None:
    """End the process with code 2 at the first unknown option. argparse would first name arguments that are missing."""
    known = {option for action in parser._actions for option in action.option_strings}
    for word in itertools.takewhile(lambda word: word != "--", words):
        if word.startswith("--") and word.partition("=")[0] not in known:
            from orchestrator.command_line import refuse_option

            refuse_option(parser, word)


def _refuse(top: argparse.ArgumentParser, word: str) -> NoReturn:
    from search_spaces.loading import names, nearest

    if word.endswith((".py", ".yaml", ".yml")) or word in names():
        top.error(f"{word!r} is a space and no verb: {top.prog} run {word}")
    if word.startswith("-"):
        top.error(
            f"{word[:80]!r} stands before the verb: {nearest(word, ('--help', '--version'))}; options follow the verb"
        )
    top.error(f"{word[:80]!r} is no verb: {nearest(word, VERBS)}")


def console() -> NoReturn:
    """Be the program `peft-sweep`."""
    from search_spaces.redaction import clean_tracebacks

    clean_tracebacks()
    sys.exit(main())


if __name__ == "__main__":
    console()
