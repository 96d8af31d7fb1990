"""Trains one trial of a peft row with a plain loop behind the same methods as the engine that trains trials together.

Order of examples, schedule, clipping, weight decay, evaluation, best epoch and early stopping are those of `TrialState` and
`Engine`. Network and formulas are transformers' and peft's, on a copy of the model of the trial's own. All random numbers of a
step come from the trial's seed and the step's number, so that a trial that continues from a checkpoint has equal results.

Legend: P trained values of the trial.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from search_spaces.records import Ablation, Counts, Progress, TestResult, Trial
from trainables.backbone.models import Model
from trainables.methods.peft_row import PeftRow
from trainables.peft_training import adalora_state
from trainables.peft_training.batches import padding_for
from trainables.peft_training.counts import count_trained
from trainables.peft_training.network_outputs import autocast, head_outputs
from trainables.peft_training.networks import build_network, is_head, seeded, set_values, trained_parameters, values_of
from trainables.tasks.metrics import Scores, compute_metrics
from trainables.tasks.task_data import Split, TaskData
from trainables.training.peak_memory import peak_memory_mib
from trainables.training.trial_state import TrialState


class PeftEngine:
    """The engine of a single trial. It starts no threads: call its methods from one thread only."""

    # No steps are captured as CUDA graphs.
    graph_bytes = 0

    def __init__(self, model: Model, device: torch.device):
        self.model, self.device = model, device
        self._trial: PeftTraining | None = None

    @property
    def residents(self) -> list[str]:
        """Id of the trial, if it was added and not removed."""
        return [self._trial.state.trial.id] if self._trial else []

    def add_trial(self, trial: Trial, data: TaskData) -> TrialState:
        """Add the trial with its initial parameters and return its state. Raises ValueError if peft refuses the configuration."""
        assert self._trial is None, "an engine of peft trains one trial"
        self._trial = PeftTraining(trial, data, self.model, self.device)
        return self._trial.state

    def restore(
        self, trial: Trial, data: TaskData, tensors: dict[str, Tensor], epoch: int, progress: Sequence[Progress]
    ) -> TrialState:
        """Add a trial that continues from a checkpoint; arguments as of `Engine.restore`. Raises KeyError or ValueError."""
        training = PeftTraining(trial, data, self.model, self.device)
        training.restore(tensors, epoch, progress)
        self._trial = training
        return training.state

    def remove_trial(self, trial_id: str) -> None:
        """Remove the trial. Raises KeyError if it is not resident."""
        self._find(trial_id)
        self._trial = None

    def set_active(self, trial_ids: Sequence[str]) -> None:
        """The only trial is always active."""
        assert list(trial_ids) == self.residents, (trial_ids, self.residents)

    def zero_grad(self) -> None:
        """Clear the gradients of a step that raised."""
        if self._trial:
            self._trial.optimizer.zero_grad()

    def step(self) -> list[TrialState]:
        """Take one optimiser step; evaluate if it ends an epoch. Returns the state then, else nothing. As `Engine.step`."""
        assert self._trial, "an engine without a trial has nothing to train"
        return self._trial.step()

    def test(self, trial_id: str) -> TestResult:
        """Evaluate the trial on the test split with the parameters of its best epoch."""
        training = self._find(trial_id)
        data = training.state.data
        now = values_of(training.network)
        set_values(training.network, training.state.best)
        try:
            scores = training.evaluate(data.test)
        finally:
            set_values(training.network, now)
        return TestResult(
            metrics={str(name): value for name, value in scores.metrics.items()},
            predictions=tuple(scores.predictions),
            labels=tuple(data.task.form.decode(data.test.labels).tolist()),
            collapsed=scores.collapsed,
        )

    def ablate(self, trial_id: str) -> Ablation | None:
        """None: modules of peft cannot be removed from single layers."""
        self._find(trial_id)
        return None

    def counts(self, trial_id: str) -> Counts:
        """Numbers of parameters, counted from the trial's network and from what peft saves of it."""
        return count_trained(self._find(trial_id).network, self.model.total)

    def state(self, trial_id: str) -> tuple[TrialState, dict[str, Tensor]]:
        """Returns the trial's state and the tensors that a checkpoint needs, by the names of `Engine.state`, on the CPU."""
        training = self._find(trial_id)
        return training.state, {name: t.detach().cpu().contiguous() for name, t in training.tensors().items()}

    def _find(self, trial_id: str) -> PeftTraining:
        if self._trial is None or self._trial.state.trial.id != trial_id:
            raise KeyError(f"trial {trial_id} is not resident")
        return self._trial


class PeftTraining:
    """The trial of an engine: its network, optimiser and state."""

    def __init__(self, trial: Trial, data: TaskData, model: Model, device: torch.device):
        self.row = PeftRow(config=trial.settings)
        self.state = TrialState(trial=trial, method=self.row, data=data, best=torch.empty(0))
        total = self.state.steps_per_epoch * trial.recipe.epochs
        self.network: Any = build_network(model, trial, self.row, data.task, total)
        self.padding = padding_for(self.network.get_base_model(), self.row, data)
        self.network.to(device)
        self.device, self._losses = device, torch.zeros((), device=device)
        named = trained_parameters(self.network)
        self.parameters = [parameter for _, parameter in named]
        recipe = trial.recipe
        groups = [
            {"params": [p for name, p in named if _is_decayed(name, p)], "weight_decay": recipe.weight_decay},
            {"params": [p for name, p in named if not _is_decayed(name, p)], "weight_decay": 0.0},
        ]
        betas = (recipe.beta1, recipe.beta2)
        self.optimizer = torch.optim.AdamW([g for g in groups if g["params"]], trial.lr, betas, recipe.eps)
        self.state.best = values_of(self.network)

    def step(self) -> list[TrialState]:
        """As `PeftEngine.step`."""
        if not self.state.epoch_is_over:
            self._train()
        if not self.state.epoch_is_over:
            return []
        self._end_epoch()
        return [self.state]

    def evaluate(self, split: Split) -> Scores:
        """Return the scores of the present parameters on a split."""
        return compute_metrics(self.state.data.task, self._outputs(split), split.labels)

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors of a checkpoint: values, best [P], moments [2, P], and memory [3, P] of AdaLoRA."""
        moments = [torch.cat([self._moment(p, name) for p in self.parameters]) for name in ("exp_avg", "exp_avg_sq")]
        found = {"values": values_of(self.network), "best": self.state.best, "moments": torch.stack(moments)}
        if self.row.peft_type == "ADALORA":
            found["memory"] = adalora_state.memory_of(self.network)
        return found

    def restore(self, tensors: dict[str, Tensor], epoch: int, progress: Sequence[Progress]) -> None:
        """Continue from the tensors of a checkpoint after `epoch` epochs. Raises KeyError or ValueError if they do not fit."""
        wanted = tuple(self.state.best.shape)
        for name, shape in (("values", wanted), ("best", wanted), ("moments", (2, *wanted))):
            if tuple(tensors[name].shape) != shape:
                raise ValueError(f"tensor {name} has shape {tuple(tensors[name].shape)}, not {shape}")
        tensors = {name: tensor.clone().to(self.device) for name, tensor in tensors.items()}
        set_values(self.network, tensors["values"])
        self.state.best, self.state.epoch, self.state.progress = tensors["best"], epoch, list(progress)
        self.state.step = epoch * self.state.steps_per_epoch
        sizes = [parameter.numel() for parameter in self.parameters]
        for parameter, part in zip(self.parameters, tensors["moments"].split(sizes, dim=1), strict=True):
            first, second = (row.view(parameter.shape).clone() for row in part)
            self.optimizer.state[parameter] = {
                "step": torch.tensor(float(self.state.step)),
                "exp_avg": first,
                "exp_avg_sq": second,
            }
        if "memory" in tensors:
            adalora_state.set_memory(self.network, tensors["memory"])

    def _train(self) -> None:
        """Take one optimiser step on the next mini-batch and add its mean loss, without penalties of peft's, to the epoch's."""
        state, recipe = self.state, self.state.trial.recipe
        split, chosen = state.batch()
        form, loss = state.data.task.form, torch.zeros((), device=self.device)
        self.network.train()
        self.optimizer.zero_grad()
        with seeded(state.seed("dropout"), self.device):
            for part, inputs in self.padding.batches(split, chosen, self.device):
                labels, share = torch.from_numpy(split.labels[part]).to(self.device), len(part) / len(chosen)
                with self._autocast():
                    # With labels, so that the loss has the penalties that some of peft's modules add to it.
                    found = self.network(**inputs, labels=labels if state.data.task.outputs == 1 else labels.long())
                (found.loss * share).backward()
                losses = form.losses(found.logits.detach().float()[None], labels[None])
                loss += losses.mean() * share
        torch.nn.utils.clip_grad_norm_(self.parameters, recipe.clip)
        for group in self.optimizer.param_groups:
            group["lr"] = state.trial.lr * state.lr_scale()
        self.optimizer.step()
        if self.row.peft_type == "ADALORA":
            adalora_state.allocate(self.network, state.step + 1)
        self._losses += loss
        state.step += 1

    def _end_epoch(self) -> None:
        """Evaluate on the validation split and record scores, loss and best parameters."""
        state = self.state
        scores = self.evaluate(state.data.validation)
        loss = float(self._losses) / state.steps_per_epoch
        self._losses.zero_()
        state.epoch += 1
        progress = state.record(scores.score, loss if np.isfinite(loss) else None, peak_memory_mib(self.device))
        if progress.best_epoch == state.epoch:
            state.best = values_of(self.network)

    def _outputs(self, split: Split) -> np.ndarray:
        with self._autocast():
            return head_outputs(self.network, self.padding, split, self.state.data.task.outputs)

    def _moment(self, parameter: Tensor, name: str) -> Tensor:
        found: Tensor = self.optimizer.state.get(parameter, {}).get(name, torch.zeros_like(parameter))
        return found.flatten()

    def _autocast(self) -> AbstractContextManager[Any]:
        return autocast(self.device, self.state.trial.recipe.precision)


def _is_decayed(name: str, parameter: Tensor) -> bool:
    """Return whether a parameter is subject to weight decay: matrices are, not vectors that peft keeps as one row or column."""
    return parameter.ndim > 1 and (is_head(name) or sum(size > 1 for size in parameter.shape) > 1)
