"""Writes a draft as a space file, and says in a few lines what was decided and why."""

from __future__ import annotations

from pathlib import Path

from orchestrator.new_space.draft import MODEL, MULTILINGUAL, Draft, relative
from orchestrator.new_space.labels import fields_of
from orchestrator.new_space.sizes import FINAL_SEEDS, TRIALS
from trainables.backbone import models
from trainables.backbone.packaged_models import PACKAGED_MODELS
from trainables.methods import METHODS
from trainables.tasks.forms.class_names import printable

# A drawn test split of fewer examples than this shows large differences only.
FEW_TEST = 200
# Characters of an argument and its comment that stand in one line.
LINE = 100


def space_text(draft: Draft, target: Path, commands: tuple[str, str]) -> str:
    """Return the content of the space file `target`. `commands`: the command lines that plan it, with a probe, and run it."""
    size, name = draft.size, draft.name
    examples = f"{draft.tokens.examples:,}"
    if size.train_examples:
        used = f"Trained on {size.train_examples:,} of {examples} examples, to end in about {_hours(size.hours)} here; 0: all."
    else:
        used = f"Trained on all {examples} training examples."
    recipe = [f"epochs={size.epochs}"]
    recipe += [f"train_examples={size.train_examples:_}"] if size.train_examples else []
    recipe += [f"test_examples={size.test_examples:_}"] if size.test_examples else []
    # Neither may end the docstring.
    shown = [command.replace("\\", "/").replace('"', "'") for command in commands]
    lines = [
        f'"""Fine-tuning methods compared on {name}. Change what you like.',
        "",
        f"    {shown[0]}    # what it takes",
        f"    {shown[1]}",
        '"""',
        "",
        "from search_spaces.language import Budget, FileTask, Recipe, Space, own_search",
        "",
        "task = FileTask(",
        *(f"    {line}" for line in _task_lines(draft, target.absolute().parent)),
        ")",
        "",
        "space = Space(",
        f"    title={_literal(_comment(draft.title))},",
        f"    models=({_literal(draft.model)},),  # {_model_note(draft)}",
        "    tasks=(task,),",
        "    # Each is searched over the learning rates and sizes that are recommended for it.",
        "    methods=(",
        *(f'        own_search("{each}"),  # {METHODS[each].title}' for each in size.methods),
        "    ),",
        f'    search={{"batch_size": {size.batch_size}}},',
        f"    # {used}",
        f"    recipe=Recipe({', '.join(recipe)}),",
        f"    # {TRIALS} settings of each method are tried; the best one is trained again on {FINAL_SEEDS} new seeds and tested.",
        f"    budget=Budget(trials={TRIALS}, final_seeds={FINAL_SEEDS}),",
        ")",
        "",
    ]
    return "\n".join(lines)


def _task_lines(draft: Draft, folder: Path) -> list[str]:
    """Return the arguments of FileTask, each with its reason as a comment."""
    table, roles = draft.table, draft.roles
    found: list[tuple[str, object, str]] = [
        ("name", draft.name, ""),
        ("train", relative(table.path, folder), f"{draft.rows:,} rows"),
    ]
    if draft.test:
        found.append(("test", relative(draft.test, folder), ""))
    found.append(("text", roles.text.name, _others(roles.other_texts)))
    if roles.text_pair:
        found.append(("text_pair", roles.text_pair.name, ""))
    found.append(("label", roles.label.name, draft.metric.reason))
    if roles.regression:
        found.append(("regression", True, ""))
    found += [(name, value, "") for name, value in fields_of(draft.metric).items()]
    if draft.missing:
        found.append(("missing", "drop", f"{draft.missing:,} rows lack a text or a label"))
    if table.encoding != "utf-8":
        word = f"; the file has words such as {table.foreign_word}" if table.foreign_word else ""
        found.append(("encoding", table.encoding, f"it is no UTF-8{word}"))
    if table.separator:
        found.append(("separator", table.separator, ""))
    if table.header:
        found.append(("header", table.header, "the first line names no columns"))
    if draft.grouped_by_text:
        found.append(
            ("group", roles.text.name, f"{draft.copies:,} texts are copies; all copies of one go into the same split")
        )
    lines = []
    for key, value, note in found:
        line, comment = f"{key}={_literal(value)},", f"# {_comment(note)}"
        long = len(line) + len(comment) > LINE
        lines += ([comment, line] if long else [f"{line}  {comment}"]) if note else [line]
    if roles.group:
        lines.append(
            f"# group={_literal(roles.group)},  # keeps rows with the same {_comment(roles.group)} in one split"
        )
    if not draft.test:
        lines.append(f"# No test file: a tenth of the rows, {draft.num_test:,}, is set aside as the test split.")
    return lines


def decisions(draft: Draft, target: Path, commands: tuple[str, str]) -> list[str]:
    """Return what was decided and why, a line each, and the next commands."""
    roles, size, table = draft.roles, draft.size, draft.table
    form = "regression" if roles.regression else "classification"
    score = draft.metric.metric or ("Pearson's correlation" if roles.regression else "accuracy")
    score += f" of the class {printable(draft.metric.positive)!r}" if draft.metric.positive else ""
    pair = f" with {roles.text_pair.name!r}" if roles.text_pair else ""
    told = [
        ("texts", f"column {roles.text.name!r}{pair}{_or(roles.other_texts, '--text')}"),
        ("labels", f"column {roles.label.name!r}, {form}, scored by {score}{_or(roles.other_labels, '--label')}"),
        ("", draft.metric.reason),
        *(("look at", warning) for warning in draft.metric.warnings),
    ]
    if draft.contradictions:
        told.append(("look at", f"{draft.contradictions:,} texts occur with different labels"))
    if table.separator or table.header or table.encoding != "utf-8":
        parts = [f"encoding {table.encoding}" if table.encoding != "utf-8" else ""]
        parts += [f"check words such as {table.foreign_word}" if table.foreign_word else ""]
        parts += [f"fields separated by {table.separator!r}" if table.separator else ""]
        parts += ["no header line" if table.header else ""]
        told.append(("file", ", ".join(filter(None, parts))))
    if draft.missing:
        told.append(("rows", f"{draft.missing:,} of {draft.rows:,} lack a text or a label and are left out"))
    if draft.grouped_by_text:
        told.append(("copies", f"{draft.copies:,} texts repeat earlier ones; copies stay in one split"))
    if roles.group:
        told.append(
            (
                "groups",
                f"values of {roles.group!r} repeat: if its rows belong together, use the group= line of the file",
            )
        )
    if draft.test:
        told.append(("test", f"{draft.test.name}{', found beside it' if draft.test_found else ''}"))
    else:
        few = (
            "; that few show only large differences: give more with --test FILE"
            if (draft.num_test or 0) < FEW_TEST
            else ""
        )
        told.append(("test", f"{draft.num_test:,} rows, a tenth, are set aside{few}"))
    told.append(("model", _model_note(draft)))
    if draft.tokens.cut.cut:
        told.append(("cut", f"to 128 tokens: {draft.tokens.cut} examples looked at; Recipe(max_length=...) changes it"))
    if draft.foreign:
        told.append(("", "the texts are mostly not in Latin letters" + _foreign_advice(draft)))
    used = size.train_examples or draft.tokens.examples
    device = f"{draft.gpus} GPU{'' if draft.gpus == 1 else 's'}" if draft.gpus else f"{draft.cores} CPU cores"
    told.append(("methods", ", ".join(size.methods)))
    told.append(
        (
            "size",
            f"{used:,} training examples x {size.epochs} epochs: a guess of at most {_hours(size.hours)} on {device}",
        )
    )
    return [
        f"{target} is written:",
        *(f"  {name:<8} {_comment(text)}" for name, text in told),
        f"next: {commands[0]}    # measures what it takes",
        f"      {commands[1]}",
    ]


def _foreign_advice(draft: Draft) -> str:
    if draft.model == MULTILINGUAL:
        return ""
    return f", which {MODEL} hardly knows: models=({MULTILINGUAL!r},) is better, downloaded at the start"


def _model_note(draft: Draft) -> str:
    if draft.model != MODEL:
        return f"{models.title(draft.model)}, for texts that are not in Latin letters"
    origin = (
        "installed here"
        if models.local(MODEL)
        else f"downloaded from the Hub at the start ({PACKAGED_MODELS[MODEL].hub_id})"
    )
    return f"{models.title(MODEL)}, 22 million parameters, English; {origin}"


def _or(names: tuple[str, ...], option: str) -> str:
    return f" (or {option} {', '.join(map(repr, names))})" if names else ""


def _others(names: tuple[str, ...]) -> str:
    return f"or {', '.join(names)}" if names else ""


def _literal(value: object) -> str:
    """Return the value as Python writes it, with double quote marks where that is possible."""
    if isinstance(value, tuple):
        return f"({', '.join(map(_literal, value))}{',' if len(value) == 1 else ''})"
    text = repr(value)
    return f'"{text[1:-1]}"' if text.startswith("'") and '"' not in text else text


def _comment(text: str) -> str:
    """Return a text that may hold words of the user's file, on one line."""
    return " ".join(printable(text, 400).split())


def _hours(hours: float) -> str:
    return f"{hours:.1f} h" if hours >= 2 else f"{max(1, round(hours * 60))} min"
