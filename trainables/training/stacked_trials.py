"""Trials that one batched computation trains: their states, and their parameters stacked as rows of the same tensors.

The trials of a stack never change: the engine makes a new stack when a trial is added or removed. Parameter values change
only in `update`, in `start_second_phase` (`trainables/training/pruning.py`) and, for the duration of an evaluation, in
`at_best_epoch`. The trials' states change only in the engine.

Legend: K trials of the stack, n length of a step input.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from trainables.backbone.backbone import Backbone
from trainables.backbone.dropout import DropoutFactors
from trainables.backbone.packing import Rows, sent
from trainables.training.stacked_parameters import StackedParameters, StepHyperparameters
from trainables.training.trial_state import TrialState


class StackedTrials:
    """K trials with the same method, settings, number of outputs, loss and optimiser constants.

    `states[i]` and row i of `parameters` belong to the same trial.
    """

    def __init__(self, parameters: StackedParameters, states: list[TrialState]):
        self.parameters, self.states = parameters, states

    def __len__(self) -> int:
        return len(self.states)

    def index(self, trial_id: str) -> int | None:
        """Returns the trial's row in this stack, None if the trial is not in it."""
        return next((i for i, state in enumerate(self.states) if state.trial.id == trial_id), None)

    def can_stack_with(self, other: StackedTrials) -> bool:
        """Whether both stacks have the same method, settings, outputs, loss and optimiser constants (beta1, beta2, eps)."""
        return self._constants == other._constants

    def select(self, rows: Sequence[int]) -> StackedTrials:
        """Returns a new stack with copies of these rows' parameters and with the same states."""
        parameters = StackedParameters.concatenate([self.parameters], [rows])
        return StackedTrials(parameters, [self.states[i] for i in rows])

    def with_appended(self, other: StackedTrials) -> StackedTrials:
        """Returns a new stack with these trials followed by those of `other`, for which `can_stack_with` must be true."""
        rows = [range(len(self)), range(len(other))]
        parameters = StackedParameters.concatenate([self.parameters, other.parameters], rows)
        return StackedTrials(parameters, [*self.states, *other.states])

    def hyperparameters(self) -> Tensor:
        """Returns what `update` needs for the next step: [6, K, 1], in the order of the fields of `StepHyperparameters`."""
        per_trial = [
            [state.trial.lr * state.lr_scale() for state in self.states],
            [state.lr_scale() for state in self.states],
            [state.step + 1.0 - state.phase.start for state in self.states],
            [float(len(state.phase)) for state in self.states],
            [state.trial.recipe.weight_decay for state in self.states],
            [state.trial.recipe.clip for state in self.states],
        ]
        # One asynchronous copy: a tensor made from numbers on the device would block the host until the device is idle.
        return sent(torch.tensor(per_trial), self.parameters.values.device)[..., None]

    def update(self, hyperparameters: Tensor) -> None:
        """Take one AdamW step of every trial with the gradients of the last backward pass. Leaves `TrialState.step` unchanged."""
        lr, scale, step, total, decay, clip = hyperparameters
        self.parameters.step(
            StepHyperparameters(
                lr=lr,
                lr_scale=scale,
                step=step,
                total_steps=total,
                weight_decay=decay,
                max_grad_norm=clip,
                noise_seed=self.noise_seed,
            )
        )

    @contextmanager
    def at_best_epoch(self, index: int) -> Iterator[None]:
        """A context in which trial `index` has the parameters of its best epoch; the current ones are restored after it."""
        values = self.parameters.values[index]
        current = values.clone()
        values.copy_(self.states[index].best)
        try:
            yield
        finally:
            values.copy_(current)

    def sample_step_inputs(self, backbone: Backbone) -> dict[str, Tensor]:
        """Returns the random inputs that the method samples for each trial in the next step: [K, 1, n] by name."""
        inputs = [state.method.sample_step_inputs(backbone.shape, state.random("draws")) for state in self.states]
        return _stacked(inputs, backbone)

    def eval_inputs(self, backbone: Backbone, num_rows: int) -> dict[str, Tensor]:
        """Returns the constants that evaluation uses instead of the random step inputs: [num_rows, 1, n] by name."""
        return _stacked([self.states[0].method.eval_inputs(backbone.shape)] * num_rows, backbone)

    @property
    def noise_seed(self) -> int:
        """The seed of the next step's random numbers for `PrivateWeights`; such a trial is the only one of its stack."""
        return self.states[0].seed("noise")

    @property
    def _constants(self) -> tuple[object, ...]:
        state = self.states[0]
        task, recipe = state.data.task, state.trial.recipe
        return state.method, task.outputs, task.form.name, recipe.beta1, recipe.beta2, recipe.eps


def dropout_of(
    states: Sequence[TrialState],
    steps: Sequence[int],
    rows: Rows,
    backbone: Backbone,
    storage: DropoutFactors | None = None,
) -> DropoutFactors:
    """Returns the dropout factors of one step. Row i belongs to `states[i]` and uses its random numbers of step `steps[i]`.

    `storage`: factors for rows of the same sizes, to overwrite.

    Rates come from the trial's recipe or, where that is negative, from the pretrained model's config.
    """
    hidden, attention, head = backbone.config_dropout
    rates = [state.trial.recipe.dropout for state in states]
    return DropoutFactors(
        rows,
        backbone.shape,
        [(state.trial.seed, step) for state, step in zip(states, steps, strict=True)],
        [hidden if rate < 0 else rate for rate in rates],
        [attention if rate < 0 else rate for rate in rates],
        [head if rate < 0 else rate for rate in rates],
        [state.method.prefix_tokens for state in states],
        [state.method.prefix_dropout for state in states],
        storage,
    )


def _stacked(inputs: Sequence[Mapping[str, ArrayLike]], backbone: Backbone) -> dict[str, Tensor]:
    def stack(vectors: list[ArrayLike]) -> Tensor:
        return sent(torch.from_numpy(np.asarray(vectors, np.float32)), backbone.device)[:, None]

    return {name: stack([each[name] for each in inputs]) for name in inputs[0]}
