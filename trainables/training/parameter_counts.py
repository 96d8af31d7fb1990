"""Builds a method from its settings and counts its trainable parameters on a backbone. This module never imports torch."""

from __future__ import annotations

from collections.abc import Mapping

from search_spaces.language import Scalar
from search_spaces.loading import nearest
from search_spaces.peft_rows import PEFT
from search_spaces.records import Counts
from trainables.methods.base import Method
from trainables.methods.lookup import make_method, method_type
from trainables.methods.spec import Shape


def build(name: str, settings: Mapping[str, Scalar], shape: Shape | None = None) -> Method:
    """Returns the method `name` with these settings. Raises ValueError naming a setting that is unknown or not allowed.

    `shape`: of the backbone, None if it is not known yet. The settings of a row of peft are checked elsewhere.
    """
    if name == PEFT:
        return make_method(name, settings)
    kind = method_type(name)
    known = list(kind().settings())
    unknown = sorted(set(settings) - set(known))
    if unknown:
        hint = nearest(unknown[0], known) if known else "known: none"
        raise ValueError(f"{unknown[0]!r} is no setting of {name!r}; {hint}")
    method = kind(**settings)
    method.check(shape)
    return method


def count(method: Method, shape: Shape, outputs: int) -> Counts:
    """Returns the numbers of trained, active and stored parameters. `outputs`: of the head, the classes or 1 for regression.

    Not for rows of peft, whose parameters are counted in the network.
    """
    weights, module = method.counts(shape)
    stored, beside = method.stored(shape), norms(method, shape) + shape.head(outputs, method.head_reads)
    return Counts(
        weights=weights,
        module=module,
        trained=module + beside,
        total=shape.total,
        active=stored.values + beside,
        stored_bytes=stored.num_bytes + 4 * beside,
    )


def norms(method: Method, shape: Shape) -> int:
    """Returns the number of LayerNorm parameters that are trained in addition to the method's own parameters."""
    biases = shape.norm_gains if shape.norm_biases else 0
    return {"none": 0, "biases": biases, "all": shape.norm_gains + biases}[method.norms]
