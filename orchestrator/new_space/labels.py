"""Chooses the metric of a task from its labels, and says why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from orchestrator.new_space.columns import Column
from trainables.tasks.forms.class_names import class_name, counts_text, evident_positive, in_order

# If one class has a larger share of the rows than this, accuracy says little: always answering it scores that much.
MOST_FOR_ACCURACY = 0.65


@dataclass(frozen=True, kw_only=True)
class Metric:
    """metric, positive: the fields of `FileTask`, "" for its defaults. reason: what the labels are, as a phrase."""

    metric: str
    positive: str
    reason: str


def choose_metric(label: Column, regression: bool) -> Metric:
    """Return the metric for these labels. Accuracy is the default of classifications, Pearson's correlation of regressions."""
    if regression:
        numbers = [float(value) for value in label.filled]
        return Metric(metric="", positive="", reason=f"numbers from {min(numbers):g} to {max(numbers):g}")
    booleans = all(isinstance(value, bool) for value in label.filled)
    names = [class_name(value, booleans) for value in label.filled]
    classes = in_order(names)
    largest = max(classes, key=names.count)
    share = names.count(largest) / len(names)
    reason = f"{len(classes)} classes: {counts_text(names, 6)}"
    if share <= MOST_FOR_ACCURACY:
        return Metric(metric="", positive="", reason=reason)
    reason += f"; always answering {largest!r} has an accuracy of {100 * share:.0f} %"
    positive = evident_positive(classes) if len(classes) == 2 else None
    if positive is not None and positive != largest:
        return Metric(metric="f1", positive=positive, reason=reason)
    return Metric(metric="macro_f1", positive="", reason=reason)


def fields_of(metric: Metric) -> Mapping[str, str]:
    """Return those fields of `FileTask` that differ from their defaults."""
    return {name: value for name, value in (("metric", metric.metric), ("positive", metric.positive)) if value}
