"""Writes a final as a folder that others load: in peft's layout, as a model of transformers, or in our own layout."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from orchestrator.exit_codes import EnvironmentUnfit
from orchestrator.export import card, peft_layout, plain_weights
from orchestrator.export.checking import Agreement, check
from orchestrator.export.kept_final import KeptFinal
from orchestrator.export.predictor import POOLER, Predictor
from orchestrator.export.record import FILE, ExportKind, ExportRecord, digest, file_task_of, task_of, with_columns
from orchestrator.export.tensor_names import in_units, lacks_pooler, named, unquantized
from orchestrator.planning.preflight import check_quantization
from search_spaces.peft_rows import PEFT
from trainables.backbone import hub
from trainables.backbone.backbone import Backbone
from trainables.backbone.families import FAMILIES
from trainables.backbone.models import Model, resolve
from trainables.backbone.packaged_models import PACKAGED_MODELS
from trainables.backbone.weight_files import WEIGHTS
from trainables.methods.base import Method
from trainables.methods.lookup import make_method
from trainables.tasks.forms.regression import REGRESSION, Regression
from trainables.tasks.task_data import Task
from trainables.tasks.tokens import TOKENIZER_FILES, tokenizer_use
from trainables.training.parameter_layout import ParameterLayout
from trainables.training.stacked_parameters import StackedParameters

FILES: Mapping[ExportKind, str] = {
    "peft": peft_layout.WEIGHTS,
    "transformers": WEIGHTS,
    "own": "tensors.safetensors",
}
# In a head whose outputs are in the targets' unit, float32 keeps about 7 digits: if the mean is this many standard deviations
# from zero, too few of them are left, and the head's outputs stay standardised.
MOST_DEVIATIONS = 1e4


@dataclass(frozen=True, kw_only=True)
class Exported:
    """A written export. `agreement`: how its predictions compare with the recorded ones."""

    folder: Path
    record: ExportRecord
    agreement: Agreement


def kind_of(name: str, method: Method, backbone: Backbone) -> ExportKind:
    """Return the layout in which a method is exported."""
    if name == PEFT or peft_layout.fits(name, backbone.family):
        return "peft"
    return "transformers" if plain_weights.fits(name, method, backbone) else "own"


def check_target(folder: Path) -> None:
    """Raise ValueError unless `folder` is empty or does not exist, in an existing folder."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"--to {folder}: is there already and not empty; give a new folder")
    if not folder.absolute().parent.is_dir():
        raise ValueError(f"--to {folder}: there is no folder {folder.absolute().parent}")


def write(kept: KeptFinal, folder: Path, command: str) -> Exported:
    """Write the export to `folder`, complete or not at all, after it has given the recorded test predictions.

    `command`: the command line that made it. Raises as `check_target`, and what `Predictor` and `check` raise.
    """
    check_target(folder)
    manifest, trial = kept.record.manifest, kept.final.trial
    model = resolve(manifest["models"][trial.cell.model]["source"])
    if model.fingerprint != trial.weights:
        raise EnvironmentUnfit(
            f"model {model.name!r} has other files now (fingerprint {model.fingerprint}) than when it was trained on "
            f"({trial.weights})"
        )
    check_quantization(trial.recipe)
    with _appearing(folder) as new:
        write_tensors = _write_peft_row if trial.method == PEFT else _write_tensors
        record = with_columns(write_tensors(kept, model, new), manifest)
        (new / FILE).write_text(json.dumps(record.to_json(), indent=1), "utf-8")
        shutil.copymode(new / FILE, new / record.weights)  # safetensors writes files that their owner alone may read
        agreement = check(kept, Predictor(new, base=model.name))
        use = tokenizer_use(model.path, record.trial.recipe.max_length)
        plain = unquantized(FAMILIES[model.family])
        text = card.text(kept, record, base_name(model)[0], use, agreement, command, plain)
        (new / "README.md").write_text(text, "utf-8")
    return Exported(folder=folder, record=record, agreement=agreement)


def base_name(model: Model) -> tuple[str, str | None]:
    """Return the name by which other libraries find the pretrained model, a folder or a name of the Hub, and its revision."""
    packaged = PACKAGED_MODELS.get(model.name)
    if packaged:
        return packaged.hub_id or str(model.path), None
    if Path(model.name).is_dir():
        return str(model.path), None
    found = hub.parse(model.name)
    return found.repository, found.revision


def _write_tensors(kept: KeptFinal, model: Model, folder: Path) -> ExportRecord:
    """Write all files of the export that others read, and return its record without the columns of the task's files."""
    trial, task = kept.final.trial, task_of(kept.record.manifest, kept.final.trial.cell.task)
    method, nf4 = make_method(trial.method, trial.settings), trial.recipe.nf4
    backbone = Backbone.load(model, torch.device("cpu"))
    kind = kind_of(trial.method, method, backbone)
    # Initial values are those of the dequantised weights. A whole model has the pretrained weights as they are.
    if nf4 and kind != "transformers":
        backbone = Backbone.load(model, torch.device("cpu"), "nf4", nf4)
    layout = ParameterLayout(method, backbone, task.outputs)
    tensors = named(layout, kept.values)
    form = task.form
    others = kind != "own" and backbone.shape.head_biases
    if others and isinstance(form, Regression) and abs(form.mean) <= MOST_DEVIATIONS * form.std:
        tensors, task = in_units(tensors, form.mean, form.std), replace(task, form=REGRESSION)
    files = file_task_of(kept.record.manifest, task.name)
    classes = task.classes or (files.label if files else "score",)
    path = folder / FILES[kind]
    if kind == "own":
        save_file({**_contiguous(tensors), **_missing_pooler(model, backbone)}, path)
    else:
        config = _config(model, classes, isinstance(form, Regression))
        if kind == "peft":
            _write_peft(trial.method, tensors, layout, backbone, model, folder)
            config.save_pretrained(folder)
        else:
            parameters = StackedParameters(layout, backbone, trial.recipe, kept.values.clone()[None])
            whole: Any = plain_weights.classifier(layout, tensors, parameters, backbone, config)
            whole.save_pretrained(folder, max_shard_size="1000GB")
        _copy_tokenizer(model, folder)
    return _record(kept, model, path, kind, task)


def _write_peft_row(kept: KeptFinal, model: Model, folder: Path) -> ExportRecord:
    """As `_write_tensors`, of a row of peft: the folder that the library itself saves. The head's outputs stay as trained."""
    from trainables.peft_training.networks import classifier_names, save_network

    trial, task = kept.final.trial, task_of(kept.record.manifest, kept.final.trial.cell.task)
    base, revision = base_name(model)
    files = file_task_of(kept.record.manifest, task.name)
    config = save_network(model, trial, task, kept.values, folder, base, revision)
    classifier_names(config, task.classes or (files.label if files else "score",))
    config.save_pretrained(folder)
    _copy_tokenizer(model, folder)
    return _record(kept, model, folder / peft_layout.WEIGHTS, "peft", task)


def _record(kept: KeptFinal, model: Model, path: Path, kind: ExportKind, task: Task) -> ExportRecord:
    """Return the record of an export with its tensors at `path`, without the columns of the task's files."""
    source = model.name if model.name in PACKAGED_MODELS or not Path(model.name).is_dir() else str(model.path)
    return ExportRecord(
        kind=kind, weights=path.name, digest=digest(path), source=source, trial=kept.final.trial, task=task, columns=()
    )


def _write_peft(
    name: str, tensors: Mapping[str, Tensor], layout: ParameterLayout, backbone: Backbone, model: Model, folder: Path
) -> None:
    prefix = f"{peft_layout.PREFIX}.{backbone.family.prefix}."
    pooler = {prefix + name: value for name, value in _missing_pooler(model, backbone).items()}
    found = peft_layout.to_peft(name, tensors, layout, backbone) | pooler
    save_file(_contiguous(found), folder / peft_layout.WEIGHTS, {"format": "pt"})
    base, revision = base_name(model)
    config = peft_layout.config(name, layout, backbone.family, base, ("pooler",) if pooler else ())
    text = json.dumps({**config, "revision": revision}, indent=2)
    (folder / peft_layout.CONFIG).write_text(text, "utf-8")


def _missing_pooler(model: Model, backbone: Backbone) -> dict[str, Tensor]:
    """Return the pooler's tensors if the head reads a pooler that the model's files lack, else none."""
    if not lacks_pooler(model):
        return {}
    return {n: t.detach().clone() for n, t in backbone.module.named_parameters() if n.startswith(POOLER)}


def _config(model: Model, classes: tuple[str, ...], regression: bool) -> Any:
    """Return transformers' config of the pretrained model with the names of the classes."""
    import transformers

    config: Any = transformers.AutoConfig.from_pretrained(model.path, local_files_only=True)
    config.id2label = dict(enumerate(classes))
    config.label2id = {name: index for index, name in enumerate(classes)}
    # The models are trained and exported in fp32, in whatever precision the pretrained files are.
    config.dtype = torch.float32
    if model.shape.reads_last and config.pad_token_id is None:
        config.pad_token_id = config.eos_token_id  # transformers finds the last token of an example by it
    config.problem_type = "regression" if regression else "single_label_classification"
    return config


def _copy_tokenizer(model: Model, folder: Path) -> None:
    for name in TOKENIZER_FILES:
        if name != "config.json" and (model.path / name).is_file():
            shutil.copyfile(model.path / name, folder / name)


def _contiguous(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return copies that share no memory, as a safetensors file needs them."""
    return {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()
    }


@contextmanager
def _appearing(folder: Path) -> Iterator[Path]:
    """Yield a new folder beside `folder` that gets its name at the end of the `with` block, and is removed after an error."""
    new = folder.absolute().with_name(f".{folder.name}.{os.getpid()}.tmp")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir()
    try:
        yield new
        if folder.is_dir():
            folder.rmdir()
        os.rename(new, folder)
    finally:
        shutil.rmtree(new, ignore_errors=True)
