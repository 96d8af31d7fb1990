"""Trials that one batched computation trains: their states, and their parameters stacked as rows of the same tensors.

Who may change a stack: which trials it holds never changes, the engine replaces the stack when a trial comes or goes.
Parameter values change in `update`, in `start_second_phase` (`trainables/training/pruning.py`) and, for the duration of an
evaluation, in `at_best_epoch`; the trials' states change in the engine. Everything else reads.

Legend: K trials of the stack, P parameters of one trial, n length of a step input.
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
        """The trial's row; None if it is not in this stack."""
        return next((i for i, state in enumerate(self.states) if state.trial.id == trial_id), None)

    def can_stack_with(self, other: StackedTrials) -> bool:
        """True if both stacks have the same method, settings, outputs, loss and optimiser constants."""
        return self._constants == other._constants

    def select(self, rows: Sequence[int]) -> StackedTrials:
        """A new stack of copies of these rows."""
        parameters = StackedParameters.concatenate([self.parameters], [rows])
        return StackedTrials(parameters, [self.states[i] for i in rows])

    def with_appended(self, other: StackedTrials) -> StackedTrials:
        """A new stack of this one's trials followed by the other's, which must satisfy `can_stack_with`."""
        rows = [range(len(self)), range(len(other))]
        parameters = StackedParameters.concatenate([self.parameters, other.parameters], rows)
        return StackedTrials(parameters, [*self.states, *other.states])

    def update(self) -> None:
        """One AdamW step of every trial with the gradients that the backward pass left. Counts no step."""
        per_trial = [
            [state.trial.lr * state.lr_scale() for state in self.states],
            [state.lr_scale() for state in self.states],
            [state.step + 1.0 - state.phase.start for state in self.states],
            [float(len(state.phase)) for state in self.states],
            [state.trial.recipe.weight_decay for state in self.states],
            [state.trial.recipe.clip for state in self.states],
        ]
        # One asynchronous copy: a tensor made on the device number by number stops the host until the device is idle.
        lr, scale, step, total, decay, clip = sent(torch.tensor(per_trial), self.parameters.values.device)[..., None]
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
        """Give one trial the parameters of its best epoch for the duration of the context."""
        values = self.parameters.values[index]
        current = values.clone()
        values.copy_(self.states[index].best)
        try:
            yield
        finally:
            values.copy_(current)

    def sample_step_inputs(self, backbone: Backbone) -> dict[str, Tensor]:
        """The random inputs of the next step, which the method samples for each trial: [K, 1, n] by name."""
        inputs = [state.method.sample_step_inputs(backbone.shape, state.random("draws")) for state in self.states]
        return _stacked(inputs, backbone)

    def eval_inputs(self, backbone: Backbone, num_rows: int) -> dict[str, Tensor]:
        """The constants that evaluation uses in place of them: [num_rows, 1, n] by name."""
        return _stacked([self.states[0].method.eval_inputs(backbone.shape)] * num_rows, backbone)

    @property
    def noise_seed(self) -> int:
        """The seed of the next step's noise on private weights. A trial with private weights is alone in its stack."""
        return self.states[0].seed("noise")

    @property
    def _constants(self) -> tuple[object, ...]:
        state = self.states[0]
        task, recipe = state.data.task, state.trial.recipe
        return state.method, task.outputs, task.form, recipe.beta1, recipe.beta2, recipe.eps


def dropout_of(states: Sequence[TrialState], steps: Sequence[int], rows: Rows, backbone: Backbone) -> DropoutFactors:
    """The dropout factors of each trial's row in `steps`, from the trials' own random streams."""
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
    )


def _stacked(inputs: Sequence[Mapping[str, ArrayLike]], backbone: Backbone) -> dict[str, Tensor]:
    def stack(vectors: list[ArrayLike]) -> Tensor:
        return sent(torch.from_numpy(np.asarray(vectors, np.float32)), backbone.device)[:, None]

    return {name: stack([each[name] for each in inputs]) for name in inputs[0]}
