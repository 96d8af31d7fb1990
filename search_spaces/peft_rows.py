"""Rows of the library peft: any of its configurations as a row of a space, trained alone (`trainables/peft_training`).

A row's settings are the fields of the configuration, each a fixed value or a dimension to search. Settings are scalars
everywhere else in the project, so a field that holds a list, a dict or None is kept as its JSON text, and read back by
`field_value`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from search_spaces.checks import check_name, is_text
from search_spaces.language import TRAINING, Dimension, MethodEntry, Scalar

# The name of the method of all these rows. No method of `trainables/methods` has it.
PEFT = "peft"
# The field that says which configuration it is, such as "LORA".
TYPE = "peft_type"


def peft_row(config: Mapping[str, Any], *, label: str | None = None, **settings: Any) -> MethodEntry:
    """Return a row that trains a peft configuration, such as `peft_row({"peft_type": "LOHA", "r": 8}, lr=choice(1e-3, 3e-3))`.

    `config`: fields of the configuration by name, as in peft's adapter_config.json; `settings`: further fields, and `lr`,
    `batch_size` and `epochs` of this row. Any of them may be searched. The label is "peft_" and the type unless it is given.

    Raises ValueError for what no configuration can hold; whether peft knows the fields is checked when a sweep is planned.
    """
    if not isinstance(config, Mapping):
        raise ValueError(f'peft_row takes a dict such as {{"peft_type": "LOHA", "r": 8}}, not {config!r}')
    kind = config.get(TYPE, settings.get(TYPE))
    if not isinstance(kind, str) or not kind:
        raise ValueError(f'peft_row: {TYPE} = {kind!r}: must name the configuration, such as "LOHA"')
    for name in config:
        if not isinstance(name, str) or not name.isidentifier():
            raise ValueError(f"peft_row: {name!r} is no name of a field")
        if name in TRAINING:
            raise ValueError(f"peft_row: {name} is no field of a configuration; write peft_row({{...}}, {name}=...)")
        if name in settings:
            raise ValueError(f"peft_row: {name} is given twice, in the configuration and beside it")
    values = {TYPE: kind.upper(), **{k: v for k, v in {**config, **settings}.items() if k != TYPE}}
    name = check_name("method label", label or default_label(kind))
    return MethodEntry(PEFT, name, {key: _setting(key, value) for key, value in values.items()})


def default_label(kind: str) -> str:
    """Return the label of a row of this type that is given none."""
    return f"{PEFT}_{kind.lower()}"


def field_value(setting: Scalar) -> Any:
    """Return the value of a configuration's field from the setting: lists, dicts and None from their JSON text."""
    if isinstance(setting, str) and (setting[:1] in ("[", "{") or setting == "null"):
        try:
            return json.loads(setting)
        except ValueError:  # a pattern of module names may begin like this
            return setting
    return setting


def _setting(name: str, value: Any) -> Scalar | Dimension:
    if isinstance(value, Dimension):
        return value
    if isinstance(value, list | tuple | Mapping) or value is None:
        try:
            return json.dumps(value, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ValueError(f"peft_row: {name} = {value!r} cannot be written as JSON: {error}") from None
    if not isinstance(value, Scalar) or (isinstance(value, str) and not is_text(value)):
        raise ValueError(
            f"peft_row: {name} = {value!r}: must be a number, a one-line text, True, False, None, a list, a dict, or a "
            "search such as choice(4, 8)"
        )
    return value
