"""Builds the network of one trial of a peft row: transformers' classifier with peft's modules, ready to train.

The initial values of head and modules come from the trial's seed. Imports peft only when it is called.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor, nn

from search_spaces.records import Trial
from trainables.backbone.models import Model
from trainables.methods.peft_row import PeftRow
from trainables.peft_training.configuration import make_configuration
from trainables.seeds import derive
from trainables.tasks.forms.regression import Regression
from trainables.tasks.task_data import Task

# Entries of a model's config that are dropout rates: "hidden_dropout_prob", "attention_dropout", "resid_pdrop", ...
DROPOUT = re.compile(r"(^|_)p?drop(out)?(_prob|_rate)?$")
# Heads that peft trains by itself.
KNOWN_HEADS = ("classifier", "score")
# A part that some pretrained files lack, which transformers then initialises at random.
POOLER = "pooler"
# A number of steps with which every schedule of peft's fits, for a network that is not trained any more.
FULL_SCHEDULE = 1_000_000


def build_network(model: Model, trial: Trial, row: PeftRow, task: Task, total_steps: int) -> Any:
    """Return the `PeftModel` of a trial before its first step, on the CPU.

    Raises ValueError if peft or transformers refuse the configuration or the model, or if the head would stay untrained.
    """
    with seeded(derive(trial.seed, "peft network"), torch.device("cpu")):
        config = classifier_config(model.path, task.outputs, isinstance(task.form, Regression), trial.recipe.dropout)
        base, new = load_base(model.path, config)
        return attach(base, row, total_steps, new)


def load_base(path: Path, config: Any) -> tuple[Any, list[str]]:
    """Return transformers' classifier with the pretrained weights and a new head, and the names of further new parts.

    Such a part is a pooler that the files of weights lack.
    """
    _silence()
    try:
        base, told = transformers.AutoModelForSequenceClassification.from_pretrained(
            path,
            config=config,
            dtype=torch.float32,
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    except (ValueError, RuntimeError, OSError) as error:
        raise ValueError(f"{path}: transformers cannot load it as a classifier: {str(error)[:300]}") from None
    prefix = f"{base.base_model_prefix}."
    missing = sorted(n for n in told["missing_keys"] if n.startswith(prefix) and f".{POOLER}." not in n)
    if missing:
        raise ValueError(f"{path}: its weights lack {missing[0]}{f' and {len(missing) - 1} more' * (len(missing) > 1)}")
    return base, [POOLER] if any(f".{POOLER}." in name for name in told["missing_keys"]) else []


def classifier_config(path: Path, outputs: int, regression: bool, dropout: float) -> Any:
    """Return the model's config for a classifier with so many outputs. `dropout`: as in `Recipe`.

    Raises ValueError if transformers has no classifier for models of its type.
    """
    try:
        config: Any = transformers.AutoConfig.from_pretrained(path, local_files_only=True, trust_remote_code=False)
    except (ValueError, OSError, KeyError) as error:
        raise ValueError(f"{path}: transformers cannot read its config: {str(error)[:300]}") from None
    if type(config) not in transformers.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING:
        raise ValueError(
            f"{path}: transformers has no classifier for models of the type {config.model_type!r} "
            "(AutoModelForSequenceClassification)"
        )
    config.num_labels = outputs
    config.problem_type = "regression" if regression else "single_label_classification"
    if getattr(config, "pad_token_id", None) is None:
        eos = getattr(config, "eos_token_id", None)
        config.pad_token_id = eos[0] if isinstance(eos, list) else eos if eos is not None else 0
    if dropout >= 0:
        for name, value in config.to_dict().items():
            if DROPOUT.search(name) and (isinstance(value, int | float) or value is None):
                setattr(config, name, dropout)
    return config


def attach(base: nn.Module, row: PeftRow, total_steps: int, new: Sequence[str] = ()) -> Any:
    """Return the `PeftModel` with the row's modules on a classifier. All parts of its head are trained, and those in `new`."""
    import peft

    config: Any = make_configuration(row, total_steps)
    heads = list(dict.fromkeys([*head_parts(base), *new]))
    more = [name for name in heads if name not in KNOWN_HEADS]
    if more and hasattr(config, "modules_to_save"):
        config.modules_to_save = [*(config.modules_to_save or ()), *more]
    try:
        network = peft.get_peft_model(base, config)
    except NotImplementedError:  # on the device "meta", which holds no values
        raise
    except (ValueError, TypeError, AttributeError, KeyError, ImportError, AssertionError) as error:
        reason = str(error) or type(error).__name__
        targets = f"target_modules = {row.fields['target_modules']!r}: " if "target_modules" in row.fields else ""
        raise ValueError(f"{targets}peft cannot put this {row.peft_type} on the model: {reason[:400]}") from None
    trained = [name for name, _ in trained_parameters(network)]
    frozen = [part for part in heads if not any(f".{part}." in name for name in trained)]
    if frozen:
        raise ValueError(
            f"peft's {row.peft_type} leaves the new head ({', '.join(frozen)}) at random values without training it, so that "
            "nothing could be learnt"
        )
    return network


def head_parts(base: Any) -> list[str]:
    """Return the names of the classifier's modules beside its pretrained model: the new head."""
    return [
        name
        for name, module in base.named_children()
        if name != base.base_model_prefix and next(module.parameters(), None) is not None
    ]


def trained_parameters(network: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """Return the parameters that are trained, by name, in the order of the network."""
    return [(name, parameter) for name, parameter in network.named_parameters() if parameter.requires_grad]


def is_head(name: str) -> bool:
    """Return whether a trained parameter belongs to a module that is trained as a whole, such as the head."""
    return ".modules_to_save." in name


def values_of(network: nn.Module) -> Tensor:
    """Return a copy of all trained values as one vector [P]."""
    return torch.cat([parameter.detach().flatten() for _, parameter in trained_parameters(network)])


@torch.no_grad()
def set_values(network: nn.Module, values: Tensor) -> None:
    """Set all trained values from a vector [P]. Raises ValueError if it has another length."""
    parameters = [parameter for _, parameter in trained_parameters(network)]
    sizes = [parameter.numel() for parameter in parameters]
    if tuple(values.shape) != (sum(sizes),):
        raise ValueError(f"there are {tuple(values.shape)} values, and the trial trains {sum(sizes)}")
    for parameter, part in zip(parameters, values.split(sizes), strict=True):
        parameter.copy_(part.view(parameter.shape))


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Context in which torch's global random numbers come from `seed`; afterwards they go on as before."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


def _silence() -> None:
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()


def save_network(
    model: Model, trial: Trial, task: Task, values: Tensor, folder: Path, base: str, revision: str | None
) -> Any:
    """Write the trained modules with `values` [P] as peft does, and return the config of the classifier.

    `base`, `revision`: the name and revision of the pretrained model for others who load it.
    """
    row = PeftRow(config=trial.settings)
    network = build_network(model, trial, row, task, FULL_SCHEDULE)
    set_values(network, values)
    config = network.peft_config["default"]
    config.base_model_name_or_path, config.revision = base, revision
    network.save_pretrained(folder, safe_serialization=True, save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)  # peft's empty model card
    return classifier_config(model.path, task.outputs, isinstance(task.form, Regression), -1.0)


def classifier_names(config: Any, names: tuple[str, ...]) -> None:
    """Set the names of the classes in a classifier's config."""
    config.id2label = dict(enumerate(names))
    config.label2id = {name: index for index, name in enumerate(names)}


def load_network(model: Model, task: Task, folder: Path) -> Any:
    """Return the `PeftModel` that peft finds in a folder, on the pretrained model. Raises ValueError if it cannot be loaded."""
    import peft

    config = classifier_config(model.path, task.outputs, isinstance(task.form, Regression), 0.0)
    with seeded(0, torch.device("cpu")):
        base, _ = load_base(model.path, config)
        return peft.PeftModel.from_pretrained(base, folder, use_safetensors=True).eval()
