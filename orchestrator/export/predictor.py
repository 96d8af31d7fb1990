"""Loads an exported model and predicts with it. The engine that trained the model computes the outputs, whatever the kind.

The model of a row of peft is loaded by the library peft.

    predictor = Predictor(Path("winner"))
    outputs = predictor.outputs(Texts(first=["some text"], second=None, labels=[0.0]))
    predictor.predictions(outputs), predictor.probabilities(outputs)

A folder of kind "transformers" is a pretrained model of its own, whose head alone is loaded beside it; the other kinds need the
pretrained model that they were trained on.

Legend: n texts, C outputs of the head.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from orchestrator.exit_codes import EnvironmentUnfit
from orchestrator.export import peft_layout
from orchestrator.export.record import ExportRecord, read
from orchestrator.export.tensor_names import head_names, to_row
from orchestrator.ledger import Damaged
from orchestrator.planning.preflight import check_quantization
from search_spaces.peft_rows import PEFT
from trainables.backbone.backbone import Backbone
from trainables.backbone.families import FAMILIES
from trainables.backbone.families.family import ModelFamily
from trainables.backbone.models import Model, resolve
from trainables.methods.lookup import make_method
from trainables.methods.peft_row import PeftRow, installed_peft
from trainables.tasks.task_data import Split, TaskData, Texts
from trainables.tasks.tokens import tokenise
from trainables.training.evaluation import EvalRequest, head_outputs
from trainables.training.parameter_layout import ParameterLayout
from trainables.training.stacked_parameters import StackedParameters
from trainables.training.stacked_trials import StackedTrials
from trainables.training.trial_state import TrialState

# A part of the pretrained model that is exported if the model's own files lack it.
POOLER = "pooler."


class Predictor:
    """An exported model, loaded from its folder.

    `base`: where the pretrained model is, if not where the export says. Raises ValueError if the folder is no export or the
    pretrained model cannot be used, MissingModel if it is not available, EnvironmentUnfit if it has other files or the package
    that quantises it is missing, Damaged if files of the export are damaged. A model that was trained on a quantised backbone
    predicts with the same one: its pretrained weights are quantised again in the same way.
    """

    def __init__(self, folder: Path, base: str | None = None):
        self.record = read(folder)
        trial = self.record.trial
        self.model = resolve(str(folder)) if self.record.kind == "transformers" else _base(self.record, base)
        self._trial = trial
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        if trial.method == PEFT:
            self._run = self._peft_model(folder, device)
            return
        if self.record.kind == "transformers":
            trial = replace(trial, method="linear_probe", settings={"reads": "own"})
        self._trial, self._method = trial, make_method(trial.method, trial.settings)
        check_quantization(trial.recipe)
        self._backbone = Backbone.load(self.model, device, trial.recipe.precision, trial.recipe.nf4)
        layout = ParameterLayout(self._method, self._backbone, self.record.task.outputs)
        tensors = self._tensors(folder / self.record.weights, layout)
        for name in [name for name in tensors if name.startswith(POOLER)]:
            self._backbone.module.get_parameter(name).data.copy_(tensors[name])
        self._row = to_row(layout, tensors)
        self._parameters = StackedParameters(layout, self._backbone, trial.recipe, self._row[None])
        self._run = self._engine_outputs

    def split(self, texts: Texts) -> Split:
        """Return tokenised texts, cut to the number of tokens that the model was trained with."""
        return tokenise(texts, self.model.path, self._trial.recipe.max_length, self.record.task.form)

    def outputs(self, texts: Texts | Split) -> np.ndarray:
        """Return the outputs [n, C] of the head. Raises Damaged if one of them is not finite."""
        split = self.split(texts) if isinstance(texts, Texts) else texts
        data = TaskData(task=self.record.task, train=split, validation=split, test=split, fingerprint="")
        found = self._run(data)
        if not np.isfinite(found).all():
            raise Damaged("outputs of the model are not finite: its training diverged; export another final")
        return found

    def predictions(self, outputs: np.ndarray) -> list[float]:
        """Return class indices [n], or values in the unit of the targets."""
        form = self.record.task.form
        values: list[float] = form.decode(form.predictions(outputs)).tolist()
        return values

    def probabilities(self, outputs: np.ndarray) -> np.ndarray:
        """Return the probability of each class [n, C]. Not defined for regression."""
        powers = np.exp(outputs.astype(np.float64) - outputs.max(1, keepdims=True))
        shares: np.ndarray = powers / powers.sum(1, keepdims=True)
        return shares

    def _engine_outputs(self, data: TaskData) -> np.ndarray:
        """Return the outputs [n, C] for the test split of these data, by the engine that trains trials together."""
        state = TrialState(trial=self._trial, method=self._method, data=data, best=self._row)
        stack = StackedTrials(self._parameters, [state])
        return head_outputs(self._backbone, [EvalRequest(stack=stack, index=0, split=data.test)])[0]

    def _peft_model(self, folder: Path, device: torch.device) -> Callable[[TaskData], np.ndarray]:
        """Return a function as `_engine_outputs` that runs the model of the library peft in this folder."""
        if installed_peft() is None:
            raise EnvironmentUnfit(f"{folder}: this model needs the library peft: pip install 'peft-sweep[peft]'")
        from trainables.peft_training import network_outputs
        from trainables.peft_training.batches import padding_for
        from trainables.peft_training.networks import load_network

        network = load_network(self.model, self.record.task, folder).to(device)

        def run(data: TaskData) -> np.ndarray:
            padding = padding_for(network.get_base_model(), PeftRow(config=self._trial.settings), data)
            with network_outputs.autocast(device, self._trial.recipe.precision):
                return network_outputs.head_outputs(network, padding, data.test, data.task.outputs)

        return run

    def _tensors(self, path: Path, layout: ParameterLayout) -> dict[str, Tensor]:
        """Return the tensors of the file by our names."""
        try:
            found = load_file(path)
        except SafetensorError as error:
            raise Damaged(f"{path} cannot be read ({error}); export the model again") from None
        family = FAMILIES[self.model.family]
        if self.record.kind == "own":
            return found
        if self.record.kind == "peft":
            own = peft_layout.from_peft(self.record.trial.method, found, layout, family)
            prefix = f"{peft_layout.PREFIX}.{family.prefix}."
            return own | {k.removeprefix(prefix): v for k, v in found.items() if k.startswith(prefix + POOLER)}
        return _head(found, family)


def _head(found: Mapping[str, Tensor], family: ModelFamily) -> dict[str, Tensor]:
    names = {ours: found[theirs] for ours, theirs in head_names(family).items() if theirs in found}
    return {name: value.T if value.dim() > 1 else value for name, value in names.items()}


def _base(record: ExportRecord, base: str | None) -> Model:
    """Return the pretrained model of an export, whose files must be those that it was trained on."""
    name: Any = base or record.source
    try:
        model = resolve(name)
    except ValueError as error:
        raise ValueError(f"{error}; --base names the pretrained model that the export was trained on") from None
    if model.fingerprint != record.trial.weights:
        raise EnvironmentUnfit(
            f"model {name!r} has other files (fingerprint {model.fingerprint}) than those that the export was trained on "
            f"({record.trial.weights}); --base names another folder"
        )
    return model
