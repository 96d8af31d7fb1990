"""Chooses the metric of a task from its labels, and says why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from orchestrator.new_space.columns import Column
from trainables.tasks.forms.class_names import class_name, counts_text, evident_positive, in_order, similar_names

# If one class has a larger share of the rows than this, accuracy says little: always answering it scores that much.
MOST_FOR_ACCURACY = 0.65
# Of a class with fewer rows than this, hardly any are in the test split.
FEW_ROWS = 10


@dataclass(frozen=True, kw_only=True)
class MetricChoice:
    """metric, positive: the fields of `FileTask`, "" for its defaults. reason: what the labels are, as a phrase.

    warnings: what the user should look at, a sentence each.
    """

    metric: str
    positive: str
    reason: str
    warnings: tuple[str, ...] = ()


def choose_metric(label: Column, regression: bool) -> MetricChoice:
    """Return the metric for these labels. Accuracy is the default of classifications, Pearson's correlation of regressions."""
    if regression:
        numbers = [float(value) for value in label.filled]
        return MetricChoice(metric="", positive="", reason=f"numbers from {min(numbers):g} to {max(numbers):g}")
    booleans = all(isinstance(value, bool) for value in label.filled)
    names = [class_name(value, booleans) for value in label.filled]
    classes, counts = in_order(names), Counter(names)
    largest, number = counts.most_common(1)[0]
    share = number / len(names)
    reason = f"{len(classes)} classes: {counts_text(names, 6)}"
    warnings = _warnings(counts)
    if share <= MOST_FOR_ACCURACY:
        return MetricChoice(metric="", positive="", reason=reason, warnings=warnings)
    reason += f"; always answering {largest!r} has an accuracy of {100 * share:.0f} %"
    positive = evident_positive(classes) if len(classes) == 2 else None
    if positive is not None and positive != largest:
        return MetricChoice(metric="f1", positive=positive, reason=reason, warnings=warnings)
    return MetricChoice(metric="macro_f1", positive="", reason=reason, warnings=warnings)


def _warnings(counts: Counter[str]) -> tuple[str, ...]:
    """Return a sentence for each group of spellings that may be one class, and one if there are rare classes."""
    told = [f"{' and '.join(map(repr, group))} are taken for different classes" for group in similar_names(counts)]
    rare = sum(number < FEW_ROWS for number in counts.values())
    if rare:
        told.append(f"classes with fewer than {FEW_ROWS} rows: {rare} of {len(counts)}; their scores will say little")
    return tuple(told)


def fields_of(metric: MetricChoice) -> Mapping[str, str]:
    """Return those fields of `FileTask` that differ from their defaults."""
    return {name: value for name, value in (("metric", metric.metric), ("positive", metric.positive)) if value}
