"""Loads a task, given by its name or by a `FileTask`: its texts, its splits, and a fingerprint (hash) of both."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from search_spaces import plugins
from search_spaces.checks import naming
from search_spaces.language import FileTask
from search_spaces.loading import nearest
from trainables.tasks import TASKS, files, generated, glue, nsmc_reviews, superglue
from trainables.tasks.forms import FORMS
from trainables.tasks.forms.classification import CLASSIFICATION
from trainables.tasks.forms.form import Form, Labels, Metric
from trainables.tasks.forms.regression import REGRESSION
from trainables.tasks.split_keys import SplitKeys, key_notes
from trainables.tasks.splits import split
from trainables.tasks.task_data import Loaded, SplitIndices, Task, Texts


@dataclass(frozen=True, kw_only=True)
class Examples:
    """A task with all its examples, before they are split.

    `test`, `validation`: None if this split has to be taken from `train`. `keys`: the values of the column by which the rows of
    "train", "validation" and "test" are split; empty if they are split at random. `notes`: sentences about the labels, for the
    plan and the report.
    """

    task: Task
    train: Texts
    test: Texts | None
    validation: Texts | None = None
    keys: Mapping[str, SplitKeys] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def describe(task: str | FileTask) -> Task:
    """Return the task without reading its data. Raises ValueError for an unknown name, or a metric that does not fit the form."""
    if isinstance(task, FileTask):
        return _describe_files(task)
    if task not in TASKS:
        raise ValueError(f"task {task!r} is not known: {nearest(task, TASKS)}; for your own data write a FileTask")
    return TASKS[task]


def text_columns(name: str) -> tuple[str, ...]:
    """Return the names of the text columns, one or two, in a file with examples of a built-in task or of a package's."""
    known = TASKS[name]
    if known.source == "glue":
        return glue.row(name).hub_columns
    if known.source == "nsmc":
        return nsmc_reviews.LAYOUT.columns
    pair = ("text", "text_pair")
    if known.source == "superglue":
        fields = superglue.row(name).fields
        return fields if len(fields) == len(pair) else pair
    if known.source == "package":
        second = _read_packaged(known)[0].second
    else:
        second = generated.read(generated.grammar(name), train=1, test=1)[0].second
    return pair[:1] if second is None else pair


def check_files(task: str | FileTask, data_dir: Path | None, folder: Path) -> Labels | None:
    """Check a task's files without importing large libraries; return the labels of the user's own files, if they were read.

    `folder`: where relative paths of a file task start. Only the user's own files are read as a whole. Raises ValueError for
    wrong content and for a missing file of a FileTask, MissingData for a missing file of a built-in task.
    """
    known = describe(task)
    if isinstance(task, FileTask):
        with naming("task", task.name):
            return files.check(task, known, folder)
    if known.source == "glue":
        glue.check(glue.row(known.name), data_dir)
    elif known.source == "superglue":
        superglue.check(superglue.row(known.name), data_dir)
    elif known.source == "nsmc":
        nsmc_reviews.check(known, data_dir)
    return None


def load(
    task: str | FileTask,
    *,
    data_dir: Path | None,
    folder: Path,
    train_examples: int,
    test_examples: int,
    searches: int = 1,
) -> Loaded:
    """Read and split a task and cut its splits to these numbers of examples (0: all).

    `folder`: where relative paths of a file task start. `searches`: for how many searches of a cell the task is split; all but
    the first are in `Loaded.repeats`. Raises as `check_files` does, and ValueError for too few examples.
    """
    found = read(task, data_dir, folder)
    first, *repeats = (_divided(found, train_examples, test_examples, search) for search in range(searches))
    notes = first.notes
    if any(each.split_indices.validation == first.split_indices.validation for each in repeats):
        notes += ("all searches have the same validation split: differences do not cover the choice of another one",)
    return replace(first, repeats=tuple(repeats), notes=notes)


def _divided(found: Examples, train_examples: int, test_examples: int, search: int) -> Loaded:
    """Return the task with the splits of one search, numbered from 0."""
    known, train = found.task, found.train
    with naming("task", known.name):
        chosen = split(
            train.labels,
            None if found.test is None else found.test.labels,
            known.form,
            train_examples,
            test_examples,
            None if found.validation is None else found.validation.labels,
            found.keys.get("train"),
            search,
        )
    sources = {"train": train, "validation": found.validation or train, "test": found.test or train}
    indices = {"train": chosen.train, "validation": chosen.validation, "test": chosen.test}
    parts = tuple(source.take(indices[name]) for name, source in sources.items())
    with naming("task", known.name):
        known = replace(known, form=known.form.fitted(parts[0].labels))
    labels = {name: part.labels for (name, source), part in zip(sources.items(), parts, strict=True) if source is train}
    keys = {name: found.keys.get(name, found.keys["train"]).take(indices[name]) for name in indices if found.keys}
    return Loaded(
        task=known,
        train=parts[0],
        validation=parts[1],
        test=parts[2],
        split_indices=chosen,
        fingerprint=_fingerprint(known, parts, chosen),
        majority=_constant_score(known, parts[0], parts[2]),
        notes=(
            *found.notes,
            *(key_notes(keys) if keys else ()),
            *_shared(*parts),
            *known.form.notes(labels, known.classes),
        ),
    )


def _describe_files(task: FileTask) -> Task:
    """Return the Task of a FileTask. Raises ValueError if its name is taken or its metric does not fit its form."""
    if task.name in TASKS:
        raise ValueError(f"task {task.name!r} is a built-in task's name; give your own data another one")
    form = REGRESSION if task.regression else CLASSIFICATION
    metric = _chosen_metric(task, form) if task.metric else form.metrics[0]
    return Task(
        name=task.name,
        title=task.name,
        metrics=tuple(dict.fromkeys((metric, *form.always_reported))),
        form=form,
        outputs=form.outputs,
        source="files",
        test_source=_test_source(task),
    )


def _test_source(task: FileTask) -> str:
    """Return where the test split comes from, for the plan and the report."""
    if task.test:
        return Path(task.test).name
    drawn = f", by {task.group}" if task.group else f", the latest by {task.time}" if task.time else ""
    return f"10 % of {Path(task.train).name}{drawn}"


def _chosen_metric(task: FileTask, form: Form) -> Metric:
    known = [name for each in FORMS.values() for name in each.metrics]
    if task.metric not in known:
        raise ValueError(f"task {task.name!r}: metric {task.metric!r} is not known: {nearest(task.metric, known)}")
    if task.metric not in form.metrics:
        raise ValueError(
            f"task {task.name!r}: metric {task.metric!r} does not fit a {form.name}; allowed: {', '.join(form.metrics)}"
        )
    return next(name for name in form.metrics if name == task.metric)


def read(task: str | FileTask, data_dir: Path | None, folder: Path) -> Examples:
    """Return all examples of a task, not yet split. Raises as `check_files` does."""
    known = describe(task)
    if isinstance(task, FileTask):
        with naming("task", task.name):
            found = files.read(task, known, folder)
        labels = found.labels
        known = replace(known, outputs=labels.outputs, classes=labels.classes, positive=labels.positive)
        return Examples(
            task=known,
            train=found.parts["train"],
            test=found.parts.get("test"),
            validation=found.parts.get("validation"),
            keys=found.keys,
            notes=labels.notes,
        )
    parts: tuple[Texts, Texts | None]
    if known.source == "glue":
        parts = glue.read(glue.row(known.name), data_dir)
    elif known.source == "superglue":
        parts = superglue.read(superglue.row(known.name), data_dir)
    elif known.source == "nsmc":
        parts = nsmc_reviews.read(known, data_dir)
    elif known.source == "package":
        train, test = _read_packaged(known)
        return Examples(task=known, train=train, test=test)
    else:
        parts = generated.read(generated.grammar(known.name))
    return Examples(task=known, train=parts[0], test=parts[1])


def _read_packaged(task: Task) -> tuple[Texts, Texts | None]:
    """Return the texts of another package's task. Raises ValueError, with the package's name, for any error of its code."""
    offer = plugins.find("tasks", task.name)
    assert offer, "only packages offer tasks with this source"
    try:
        train, test = plugins.load_offer(offer).read()
        for part in filter(None, (train, test)):
            if not len(part) == len(part.first) == len(part.second or part.first) > 0:
                raise ValueError("it needs as many texts as labels, and at least one")
    except (Exception, SystemExit) as error:
        raise ValueError(f"{offer}, which cannot be read ({type(error).__name__}: {error})") from None
    return train, test


def _fingerprint(task: Task, parts: tuple[Texts, ...], chosen: SplitIndices) -> str:
    """Return a hash (16 hex digits) of all that affects training and score: texts, labels, split, metric, form, outputs."""
    import numpy as np

    digest = hashlib.sha256(json.dumps([task.metrics[0], task.form.fingerprint_key, task.outputs]).encode())
    for part, indices in zip(parts, (chosen.train, chosen.validation, chosen.test), strict=True):
        digest.update(json.dumps([part.first, part.second, indices]).encode())
        digest.update(np.asarray(part.labels, np.dtype(task.form.label_type)).tobytes())
    return digest.hexdigest()[:16]


def constant_score(loaded: Loaded) -> float:
    """Return the score of the constant prediction on the validation split in percent points; `Loaded.majority` is on test."""
    return _constant_score(loaded.task, loaded.train, loaded.validation)


def _constant_score(task: Task, train: Texts, part: Texts) -> float:
    """Return the score on a split of the constant prediction, see `Form.constant_outputs`, in percent points."""
    from trainables.tasks.metrics import compute_metrics

    outputs = task.form.constant_outputs(train.labels, len(part), task.outputs)
    return compute_metrics(task, outputs, task.form.encode(part.labels)).score


def _shared(train: Texts, validation: Texts, test: Texts) -> tuple[str, ...]:
    """Return sentences for the report about examples that other splits share with train."""
    notes = []
    known = set(_pairs(train))
    for part, name in ((validation, "validation"), (test, "test")):
        shared = sum(pair in known for pair in _pairs(part))
        if shared:
            notes.append(f"{shared} of {len(part)} {name} examples also stand in train")
    return tuple(notes)


def _pairs(part: Texts) -> list[tuple[str, str]]:
    return list(zip(part.first, part.second or [""] * len(part), strict=True))
