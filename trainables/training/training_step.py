"""One optimiser step of all active trials, in two parts: `draw` makes its inputs on the host, `compute` does the rest.

`compute` depends on nothing that changes between steps except tensors, those of `StepInputs` and those of the stacks (and the
seed of `PrivateWeights`). So it can be captured once and replayed on new contents of the same tensors
(`trainables/training/captured_steps.py`).

Legend: K trials of a stack.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from trainables.backbone.backbone import Backbone
from trainables.backbone.dropout import DropoutFactors
from trainables.backbone.packing import PaddedSizes, Rows, pack
from trainables.training.forward_pass import ForwardPass
from trainables.training.losses import losses_of
from trainables.training.segments import Segment
from trainables.training.stacked_trials import StackedTrials, dropout_of


@dataclass(frozen=True, kw_only=True)
class StepInputs:
    """The inputs of one step: packed mini-batches, dropout factors, and one entry per stack of the others.

    sampled: the random inputs of the method. hyperparameters: [6, K, 1], see `StackedTrials.hyperparameters`.
    """

    rows: Rows
    masks: DropoutFactors
    sampled: list[dict[str, Tensor]]
    hyperparameters: list[Tensor]

    def overwrite(self, new: StepInputs) -> None:
        """Copy the tensors of `new`, which have the same shapes, into those of these inputs; dropout factors excepted."""
        for old, fresh in zip(self._tensors(), new._tensors(), strict=True):
            old.copy_(fresh)

    @property
    def num_bytes(self) -> int:
        return self.masks.num_bytes + sum(tensor.nbytes for tensor in self._tensors())

    def _tensors(self) -> list[Tensor]:
        rows = [value for field in fields(Rows) if isinstance(value := getattr(self.rows, field.name), Tensor)]
        return [*rows, *(each[name] for each in self.sampled for name in sorted(each)), *self.hyperparameters]


def draw(
    stacks: Sequence[StackedTrials],
    backbone: Backbone,
    padded: PaddedSizes | None = None,
    storage: StepInputs | None = None,
) -> StepInputs:
    """Returns the inputs of the next step. `padded`: pad the mini-batches to these sizes.

    `storage`: inputs of the same sizes whose dropout factors are overwritten; they are too large to be held twice.
    """
    states = [state for stack in stacks for state in stack.states]
    batches, added = [state.batch() for state in states], [state.method.virtual_tokens for state in states]
    blocks = [len(stack) for stack in stacks]
    rows = pack(batches, backbone.indexed_heads, backbone.device, blocks, added, padded, backbone.shape.reads_last)
    steps = [state.step for state in states]
    return StepInputs(
        rows=rows,
        masks=dropout_of(states, steps, rows, backbone, storage.masks if storage else None),
        sampled=[stack.sample_step_inputs(backbone) for stack in stacks],
        hyperparameters=[stack.hyperparameters() for stack in stacks],
    )


def compute(stacks: Sequence[StackedTrials], backbone: Backbone, inputs: StepInputs) -> None:
    """Run the forward and the backward pass, update all trials, and add the mean losses of their mini-batches to `losses`.

    If the forward or backward pass raises, no parameter has changed. Leaves `TrialState.step` unchanged.
    """
    losses = backward(stacks, backbone, inputs)
    for stack, loss, hyperparameters in zip(stacks, losses, inputs.hyperparameters, strict=True):
        stack.update(hyperparameters)
        stack.parameters.losses += loss


def backward(stacks: Sequence[StackedTrials], backbone: Backbone, inputs: StepInputs) -> list[Tensor]:
    """Run the forward and the backward pass; every trial's gradient is then in its stack's parameters.

    Returns one tensor [K] per stack: the mean loss of each trial's mini-batch, without penalties.
    """
    segments, start = [], 0
    for stack, sampled in zip(stacks, inputs.sampled, strict=True):
        stop = start + len(stack)
        segments.append(Segment(stack.parameters, start, stop, step_inputs=sampled, noise_seed=stack.noise_seed))
        start = stop
    rows = replace(inputs.rows)  # without the tensors that an earlier pass derived from these
    logits = ForwardPass(backbone, segments, rows, inputs.masks).logits()
    losses = [
        losses_of(out, rows, segment, stack.states[0].data.task.form)
        for out, segment, stack in zip(logits, segments, stacks, strict=True)
    ]
    penalties = [
        method.penalty(segment.everything())
        for stack, segment in zip(stacks, segments, strict=True)
        if (method := stack.parameters.layout.method).penalised
    ]
    torch.cat([*losses, *penalties]).sum().backward()
    for stack in stacks:
        stack.parameters.finish_backward()
    return [loss.detach() for loss in losses]
