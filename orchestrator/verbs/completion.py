"""The verb `completion`: prints a script with which a shell completes verbs, options and known names."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence

HELP = "print a script for completion in bash or zsh"
_HEAD = {"bash": "", "zsh": "autoload -U +X bashcompinit && bashcompinit\n"}
# `-o default`: where no word fits, names of files are completed.
_SCRIPT = """{head}_peft_sweep() {{
  local verb="${{COMP_WORDS[1]}}" before="${{COMP_WORDS[COMP_CWORD-1]}}" words=""
  if [ "$COMP_CWORD" -eq 1 ]; then
    words={verbs}
  else
    case "$verb $before" in
{cases}
    esac
  fi
  COMPREPLY=($(compgen -W "$words" -- "${{COMP_WORDS[COMP_CWORD]}}"))
}}
complete -o default -F _peft_sweep peft-sweep"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = "for this shell: source <(peft-sweep completion bash)"
    parser.add_argument("shell", choices=tuple(_HEAD), metavar="SHELL", help=f"one of {', '.join(_HEAD)}")


def run(arguments: argparse.Namespace) -> int:
    from orchestrator.command_line import print_text

    print_text(script(arguments.shell))
    return 0


def script(shell: str) -> str:
    """Return the script for bash or zsh."""
    from orchestrator.__main__ import VERBS, make_parsers

    known, cases = _known_names(), []
    for verb, parser in make_parsers(*VERBS)[1].items():
        at_the_verb: list[str] = []
        before_a_value: list[str] = []
        for action in parser._actions:
            words = [*known.get(action.dest, ()), *map(str, action.choices or ())]
            options = action.option_strings
            at_the_verb += [option for option in options if option.startswith("--")] or words
            if options and words:
                cases.append(_case(verb, options, words))
            elif action.nargs != 0:
                before_a_value += options
        cases += [_case(verb, before_a_value, [])] if before_a_value else []
        cases.append(f"      {shlex.quote(verb)}' '*) words={shlex.quote(' '.join(at_the_verb))} ;;")
    verbs = shlex.quote(" ".join([*VERBS, "--help", "--version"]))
    return _SCRIPT.format(head=_HEAD[shell], verbs=verbs, cases="\n".join(cases))


def _case(verb: str, options: Sequence[str], words: Sequence[str]) -> str:
    """Return the line for the word that follows one of these options."""
    before = "|".join(shlex.quote(f"{verb} {option}") for option in options)
    return f"      {before}) words={shlex.quote(' '.join(words))} ;;"


def _known_names() -> dict[str, list[str]]:
    """Return the names that fit the options with a list of names, by the option's name in the parsed arguments."""
    from search_spaces.loading import names
    from trainables.backbone.models import NAMES
    from trainables.methods import METHODS
    from trainables.tasks import TASKS

    return {"space": names(), "space_file": names(), "methods": [*METHODS], "tasks": [*TASKS], "models": [*NAMES]}
