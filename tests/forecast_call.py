"""A command line as a preview sees it: one core, nothing given."""

from orchestrator.forecast import Call


def make_call(out, **changes) -> Call:
    values = {"gpus": 0, "per_device": 1, "address": None, "data_dir": None, "out": out, "budget": None}
    return Call(**{**values, **changes})
