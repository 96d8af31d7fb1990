"""The training loop of many trials on one frozen backbone.

A step trains every active trial on a mini-batch of its own with one forward and one backward pass through the backbone. The
sum of the trials' mean losses is differentiated, so each trial gets the gradient that it would get alone. Trials are added
and removed between steps. This loop trains trials to their end:

    engine = Engine(backbone)
    engine.add_trial(trial, data)
    while engine.residents:
        for state in engine.step(): ...

Residents are the trials that were added and not yet removed; the active ones among them take part in steps. A stack
(`StackedTrials`) holds trials whose parameters are rows of the same tensors; a state (`TrialState`) belongs to one trial.
Trials whose method trains backbone weights cannot share an engine or a backbone with other trials.

Legend: K trials of a stack, P parameters of one trial.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from search_spaces.records import Ablation, Counts, Progress, TestResult, Trial
from trainables.backbone.backbone import Backbone
from trainables.methods import METHODS
from trainables.tasks.task_data import TaskData
from trainables.training.captured_steps import CapturedSteps
from trainables.training.evaluation import EvalRequest, evaluate
from trainables.training.layer_ablation import ablate
from trainables.training.parameter_layout import ParameterLayout
from trainables.training.peak_memory import peak_memory_mib
from trainables.training.pruning import mask_for, prunable_parameters, start_second_phase
from trainables.training.stacked_parameters import StackedParameters
from trainables.training.stacked_trials import StackedTrials
from trainables.training.training_step import compute, draw
from trainables.training.trial_state import TrialState


class Engine:
    """Trains the trials of one backbone. It starts no threads and has no locks: call its methods from one thread only."""

    def __init__(self, backbone: Backbone, captured: CapturedSteps | None = None):
        """`captured`: takes the steps that it can replay, see `captured_on`; by default all run operator by operator."""
        self.backbone, self._captured = backbone, captured
        self._stacks: list[StackedTrials] = []
        # The residents that do not take part in steps, by trial id; each is the only trial of its stack.
        self._inactive: dict[str, StackedTrials] = {}

    @property
    def residents(self) -> list[str]:
        """Ids of all trials that were added and not removed, active ones first."""
        return [state.trial.id for stack in self._stacks for state in stack.states] + list(self._inactive)

    def find(self, trial_id: str) -> tuple[StackedTrials, int]:
        """Returns the stack that holds the trial, and the trial's row in it. Raises KeyError if the trial is not resident."""
        for stack in self._all_stacks():
            index = stack.index(trial_id)
            if index is not None:
                return stack, index
        raise KeyError(f"trial {trial_id} is not resident")

    def add_trial(self, trial: Trial, data: TaskData) -> TrialState:
        """Add a trial with its initial parameters and return its state. The trial is active in the next step.

        Raises ValueError if the method does not allow these settings on this backbone, or if the engine has active trials
        and the new trial's method or theirs trains backbone weights.
        """
        method = METHODS[trial.method](**trial.settings)
        method.check(self.backbone.shape)
        method.check_recipe(trial.recipe, self.backbone.shape)
        if any(
            not stack.parameters.layout.method.shares_backbone or not method.shares_backbone for stack in self._stacks
        ):
            raise ValueError(
                f"{trial.method} and the other trials cannot share a backbone: give it an engine of its own"
            )
        layout = ParameterLayout(method, self.backbone, data.task.outputs)
        values = layout.initial_values(trial.seed, self.backbone)
        state = TrialState(trial=trial, method=method, data=data, best=values)
        parameters = StackedParameters(layout, self.backbone, trial.recipe, values[None])
        if method.mask and method.phases == 1:
            mask = mask_for(state, parameters, self.backbone)
            parameters.apply_pruning_mask(mask, torch.zeros_like(parameters.values) if method.mask.zeroed else None)
        state.best = parameters.values[0].clone()
        self._insert(StackedTrials(parameters, [state]))
        return state

    def remove_trial(self, trial_id: str) -> None:
        """Remove a resident. This does not change the results of other trials. Raises KeyError if the trial is not resident."""
        if self._inactive.pop(trial_id, None) is None:
            self._take_out(trial_id)

    def set_active(self, trial_ids: Sequence[str]) -> None:
        """Make exactly these residents active: the next steps train them and leave all others as they are."""
        for trial_id in self.residents:
            if trial_id in trial_ids and trial_id in self._inactive:
                self._insert(self._inactive.pop(trial_id))
            elif trial_id not in trial_ids and trial_id not in self._inactive:
                stack, index = self.find(trial_id)
                alone = stack if len(stack) == 1 else stack.select([index])
                self._take_out(trial_id)
                self._inactive[trial_id] = alone

    def zero_grad(self) -> None:
        """Clear the gradients and pending buffer updates of a step that raised, so that they do not enter the next step.

        Its CUDA graphs are dropped, and steps of the present active trials are not captured any more.
        """
        for stack in self._stacks:
            stack.parameters.zero_grad()
        if self._captured:
            self._captured.refuse("a step failed")  # graphs hold memory that the next step may need

    @property
    def graph_bytes(self) -> int:
        """The least memory that `zero_grad` would give back, because CUDA graphs hold it."""
        return self._captured.num_bytes if self._captured else 0

    def step(self) -> list[TrialState]:
        """Take one optimiser step of every active trial; evaluate those whose epoch ends with it on their validation split.

        Returns the states of the evaluated trials; the last entry of their `progress` is the epoch that ended. If the forward or
        backward pass raises, no parameter has changed: call `zero_grad` and `step` again, with fewer active trials if memory
        ran out. If the evaluation raises, the next call evaluates again and trains no further.
        """
        states = [state for stack in self._stacks for state in stack.states]
        assert states, "an engine without active trials has nothing to train"
        if not any(state.epoch_is_over for state in states):
            self._train(states)
        ended = [state for state in states if state.epoch_is_over]
        if ended:
            self._end_epochs(ended)
        return ended

    def test(self, trial_id: str) -> TestResult:
        """Evaluate the trial on the test split with the parameters of its best epoch. Returns metrics, predictions and labels.

        The trial's current parameters are restored afterwards.
        """
        stack, index = self.find(trial_id)
        data = stack.states[index].data
        with stack.at_best_epoch(index):
            scores = evaluate(self.backbone, [EvalRequest(stack=stack, index=index, split=data.test)])[0]
        return TestResult(
            metrics={str(name): value for name, value in scores.metrics.items()},
            predictions=tuple(scores.predictions),
            labels=tuple(data.task.form.decode(data.test.labels).tolist()),
            collapsed=scores.collapsed,
        )

    def ablate(self, trial_id: str) -> Ablation | None:
        """Validation scores of the trial without its method in every span of layers; see `trainables/training/layer_ablation.py`.

        Returns None if the method cannot be removed. The seconds that this takes are not counted in any trial's epoch.
        """
        stack, index = self.find(trial_id)
        found = ablate(self.backbone, stack.states[index], stack.parameters.layout)
        for state in [state for other in self._all_stacks() for state in other.states]:
            state.started += found.seconds if found else 0.0
        return found

    def counts(self, trial_id: str) -> Counts:
        """Numbers of parameters that the trial trains, counted from its tensors. If the method has two phases: in the first one.

        Active and stored numbers are those of the parameters of the best epoch, so that they are known when training has ended.
        Weights are the entries of matrices. If a pruning mask also covers vectors, their unpruned entries count as weights.
        """
        stack, index = self.find(trial_id)
        layout, mask = stack.parameters.layout, stack.parameters.pruning_mask
        trained = [e for e in layout.entries if e.parameter.trained]
        sizes = {e.name: e.size for e in trained}
        matrices = {e.name for e in trained if e.is_matrix}
        if mask is not None and layout.method.phases == 1:
            sizes = {e.name: int(mask[index, e.start : e.stop].sum()) for e in trained}
            matrices |= {e.name for e in prunable_parameters(layout)}
        module = {n: size for n, size in sizes.items() if not n.startswith(("norm.", "head."))}
        beside = sum(e.size for e in trained if e.name not in module)
        best = stack.states[index].best
        stored = layout.method.stored(layout.shape, {e.name: best[e.start : e.stop].view(e.shape) for e in trained})
        return Counts(
            weights=sum(size for n, size in module.items() if n in matrices),
            module=sum(module.values()),
            trained=sum(sizes.values()),
            total=self.backbone.shape.total,
            active=stored.values + beside,
            stored_bytes=stored.num_bytes + 4 * beside,
        )

    def state(self, trial_id: str) -> tuple[TrialState, dict[str, Tensor]]:
        """Returns the trial's state and, by name, the tensors that a checkpoint needs, on the CPU.

        values, best [P]: parameters now and after the best epoch. moments [2, P]: Adam's. keep [P]: the pruning mask, if
        there is one. memory [n, P]: the n tensors that the method's `after_step` keeps between steps, if there are any.
        """
        stack, index = self.find(trial_id)
        parameters, state = stack.parameters, stack.states[index]
        tensors = {"values": parameters.values[index], "moments": parameters.moments[:, index], "best": state.best}
        if parameters.pruning_mask is not None:
            tensors["keep"] = parameters.pruning_mask[index]
        if len(parameters.memory):
            tensors["memory"] = parameters.memory[:, index]
        return state, {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}

    def restore(
        self, trial: Trial, data: TaskData, tensors: dict[str, Tensor], epoch: int, progress: Sequence[Progress]
    ) -> TrialState:
        """Add a trial that continues from a checkpoint, and return its state.

        `tensors`: as `state` returned them after `epoch` epochs. `progress`: the reports of these epochs. Raises KeyError or
        ValueError if a tensor is missing or has another shape than the trial's.
        """
        method = METHODS[trial.method](**trial.settings)
        layout = ParameterLayout(method, self.backbone, data.task.outputs)
        # Tensors read from a file may be unaligned in memory, and the last bits of matrix products depend on the alignment.
        tensors = {name: tensor.clone() for name, tensor in tensors.items()}
        shapes = {"values": (), "best": (), "moments": (2,), "keep": (), "memory": (method.memories,)}
        for name, tensor in tensors.items():
            if tuple(tensor.shape) != (*shapes[name], layout.size):
                raise ValueError(f"tensor {name} has shape {tuple(tensor.shape)}, not {(*shapes[name], layout.size)}")
        state = TrialState(
            trial=trial, method=method, data=data, best=tensors["best"], epoch=epoch, progress=list(progress)
        )
        state.step = epoch * state.steps_per_epoch
        mask = tensors["keep"][None] if "keep" in tensors else None
        memory = tensors["memory"][:, None] if "memory" in tensors else None
        values, moments = tensors["values"][None], tensors["moments"][:, None]
        parameters = StackedParameters(layout, self.backbone, trial.recipe, values, moments, mask, memory)
        self._insert(StackedTrials(parameters, [state]))
        return state

    def _all_stacks(self) -> Iterator[StackedTrials]:
        yield from self._stacks
        yield from self._inactive.values()

    def _insert(self, new: StackedTrials) -> None:
        """Append the new trials to a stack with equal constants (`can_stack_with`), or add them as another stack."""
        self._forget_graphs()
        for i, stack in enumerate(self._stacks):
            if stack.can_stack_with(new):
                self._stacks[i] = stack.with_appended(new)
                return
        self._stacks.append(new)

    def _take_out(self, trial_id: str) -> None:
        """Remove an active trial from its stack. A stack that has no trial left is removed, too."""
        self._forget_graphs()
        stack, index = self.find(trial_id)
        i, rest = self._stacks.index(stack), [row for row in range(len(stack)) if row != index]
        self._stacks[i : i + 1] = [stack.select(rest)] if rest else []

    def _forget_graphs(self) -> None:
        """Drop the CUDA graphs, which read the parameters of the present stacks, before the stacks change."""
        if self._captured:
            self._captured.forget()

    def _train(self, states: list[TrialState]) -> None:
        """Take one optimiser step of all active trials. `states`: theirs, in the order of the stacks."""
        if self._captured is None or not self._captured.step(self._stacks, self.backbone):
            compute(self._stacks, self.backbone, draw(self._stacks, self.backbone))
        for state in states:
            state.step += 1

    def _end_epochs(self, ended: list[TrialState]) -> None:
        """Evaluate the trials whose epoch ended on their validation split, and record scores, losses and best parameters.

        A trial whose first of two phases ended with this epoch starts its second phase.
        """
        found = [self.find(state.trial.id) for state in ended]
        requests = [
            EvalRequest(stack=stack, index=index, split=state.data.validation)
            for (stack, index), state in zip(found, ended, strict=True)
        ]
        for state, (stack, index), scores in zip(ended, found, evaluate(self.backbone, requests), strict=True):
            parameters = stack.parameters
            loss = float(parameters.losses[index]) / state.steps_per_epoch
            parameters.losses[index] = 0
            state.epoch += 1
            progress = state.record(
                scores.score, loss if np.isfinite(loss) else None, peak_memory_mib(self.backbone.device)
            )
            if progress.best_epoch == state.epoch:
                state.best = parameters.values[index].detach().clone()
            if state.epoch == state.phase_boundary_epoch and not state.done:
                start_second_phase(state, parameters, self.backbone)
