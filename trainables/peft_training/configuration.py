"""Makes a configuration of the library peft from the settings of a row, and refuses what a row cannot hold.

Imports peft only when it is called.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from search_spaces.loading import nearest
from trainables.methods.peft_row import PeftRow

if TYPE_CHECKING:
    from peft import PeftConfig

TASK_TYPE = "SEQ_CLS"
# Fields that this project fills in, because the sweep decides them.
OURS = ("task_type", "inference_mode", "base_model_name_or_path", "revision", "peft_version", "auto_mapping")
# Fields that make peft load files or import modules that a configuration names, some of them as pickles.
LOADS = (
    *("prompt_tuning_init_state_dict_path", "tokenizer_kwargs", "megatron_config", "megatron_core", "arrow_config"),
    "trust_remote_code",
)
# Types that a plain training step on one task's texts does not train.
UNFIT_TYPES = {
    "XLORA": "it combines trained adapters, whose files it loads",
    "MULTITASK_PROMPT_TUNING": "it needs the number of a task with each example",
    "CPT": "it is for language models only",
}
# Initial values that peft computes from data or other packages by calls before training, which a row does not make.
UNFIT_INITS = ("eva", "corda", "loftq", "lora_ga")


def make_configuration(row: PeftRow, total_steps: int) -> PeftConfig:
    """Return peft's configuration of a row for a trial of so many optimiser steps.

    Raises ValueError, naming the field, for a type or a field that peft does not have, a value that it refuses, and what a row
    cannot hold.
    """
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

    kinds = {kind.value: found for kind, found in PEFT_TYPE_TO_CONFIG_MAPPING.items()}
    name, fields = row.peft_type, dict(row.fields)
    if name not in kinds:
        raise ValueError(f"peft_type {name!r} is not known to the installed peft: {nearest(name, kinds)}")
    if name in UNFIT_TYPES:
        raise ValueError(f"peft_type {name!r} cannot be a row: {UNFIT_TYPES[name]}")
    known = {field.name for field in dataclasses.fields(kinds[name]) if field.init}
    if fields.get("task_type", TASK_TYPE) != TASK_TYPE:
        raise ValueError(
            f"task_type = {fields['task_type']!r}: the tasks of a space are classifications and regressions of texts, which "
            f"peft calls {TASK_TYPE!r}; leave the field out"
        )
    fields.pop("task_type", None)
    for field in fields:
        if field in OURS:
            raise ValueError(f"{field}: the sweep decides it; leave the field out")
        if field in LOADS:
            raise ValueError(f"{field}: a row cannot load files or import modules that its configuration names")
        if field not in known:
            raise ValueError(
                f"{field!r} is no field of peft's {name}: {nearest(field, known - set(OURS) - set(LOADS))}"
            )
    if fields.get("init_lora_weights") in UNFIT_INITS:
        raise ValueError(
            f"init_lora_weights = {fields['init_lora_weights']!r}: peft computes these values from data before training, which "
            "a row does not do"
        )
    if name == "ADALORA":
        fields.setdefault("total_step", total_steps)
    return _made(name, kinds[name], fields)


def _made(name: str, kind: type[Any], fields: dict[str, Any]) -> Any:
    try:
        found = kind(**fields, task_type=TASK_TYPE)
    except (ValueError, TypeError, AttributeError, KeyError, ImportError) as error:
        raise ValueError(f"peft refuses this {name}: {error}") from None
    return found
