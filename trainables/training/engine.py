"""One frozen backbone, its slots, and the one training loop.

A step trains every resident on a mini-batch of its own: one forward and one backward through the backbone, the sum of
the trials' mean losses differentiated, so that each gradient is the one the trial would have alone. Trials join and leave
between steps. A plain Python loop drives it:

    engine = Engine(backbone)
    engine.join(trial, data)
    while engine.residents:
        for progress_of in engine.step(): ...

A method that trains backbone weights needs an engine, and a backbone, of its own.
"""

from __future__ import annotations

import resource
import sys
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from search_spaces.records import Ablation, Counts, Progress, TestResult, Trial
from trainables.backbone.backbone import Backbone
from trainables.backbone.packing import Rows, pack, sent
from trainables.methods import METHODS
from trainables.tasks.task_data import TaskData
from trainables.training.evaluation import EvalRequest, evaluate
from trainables.training.forward_pass import ForwardPass, Segment, losses_of
from trainables.training.layer_ablation import ablate
from trainables.training.parameter_layout import ParameterLayout
from trainables.training.pruning import contenders, mask_for, turn
from trainables.training.stacked_parameters import StackedParameters, StepHyperparameters
from trainables.training.stacked_trials import StackedTrials, dropout_of
from trainables.training.trial_state import TrialState


class Engine:
    """The lane's trainer. Not thread-safe; everything happens inside `join`, `step` and `leave`."""

    def __init__(self, backbone: Backbone):
        self.backbone = backbone
        self._companies: list[StackedTrials] = []
        self._aside: dict[str, StackedTrials] = {}

    @property
    def residents(self) -> list[str]:
        """Trial ids, of those set aside too."""
        return [slot.trial.id for company in self._companies for slot in company.slots] + list(self._aside)

    def join(self, trial: Trial, data: TaskData) -> TrialState:
        """Give the trial a slot, ready for its first step.

        Raises ValueError for settings that the method refuses on this backbone, or for a method that trains backbone weights
        in an engine that has other residents.
        """
        method = METHODS[trial.method](**trial.settings)
        method.check(self.backbone.shape)
        method.check_recipe(trial.recipe, self.backbone.shape)
        if self._companies and not (method.shares_backbone and self._companies[0].group.layout.method.shares_backbone):
            raise ValueError(f"{trial.method} and its neighbours cannot share a backbone: give it an engine of its own")
        layout = ParameterLayout(method, self.backbone, data.task.outputs)
        row = layout.initial(trial.seed, self.backbone)
        slot = TrialState(trial=trial, method=method, data=data, best=row)
        group = StackedParameters(layout, self.backbone, trial.recipe, row[None])
        if method.mask and method.phases == 1:
            keep = mask_for(slot, group, self.backbone)
            group.hold(keep, at=torch.zeros_like(group.values) if method.mask.zeroed else None)
        slot.best = group.values[0].clone()
        self._seat(StackedTrials(group, [slot]))
        return slot

    def leave(self, trial_id: str) -> None:
        """Free the trial's slot; the others do not notice."""
        if self._aside.pop(trial_id, None):
            return
        company, place = self._find(trial_id)
        keep = [i for i in range(len(company.slots)) if i != place]
        if keep:
            company.group = StackedParameters.of([company.group], [keep])
        else:
            self._companies.remove(company)
        company.slots.pop(place)

    def set_active(self, trial_ids: Sequence[str]) -> None:
        """Let these residents take part in the next steps, and set the others aside as they are."""
        for trial_id in self.residents:
            if trial_id in trial_ids and trial_id in self._aside:
                self._seat(self._aside[trial_id])
                del self._aside[trial_id]
            elif trial_id not in trial_ids and trial_id not in self._aside:
                company, place = self._find(trial_id)
                apart = StackedTrials(StackedParameters.of([company.group], [[place]]), [company.slots[place]])
                self.leave(trial_id)
                self._aside[trial_id] = apart

    def forget_gradients(self) -> None:
        """After a step that failed half way: the next one starts from the state before it."""
        for company in self._companies:
            company.group.forget_gradients()

    def step(self) -> list[TrialState]:
        """One optimiser step of every resident. Returns the slots whose epoch ended with it; their last `progress` is new.

        When it raises, the residents are as they were, and it can be repeated, with fewer of them if memory was short.
        """
        slots = [slot for company in self._companies for slot in company.slots]
        assert slots, "an engine without residents has nothing to train"
        if not any(slot.epoch_is_over for slot in slots):
            self._train(slots)
        ended = [slot for slot in slots if slot.epoch_is_over]
        if ended:
            self._close_epochs(ended)
        return ended

    def test(self, trial_id: str) -> TestResult:
        """Open the test split: the trial's best epoch on it. Its current parameters are kept aside and put back."""
        company, place = self._find(trial_id)
        slot, values = company.slots[place], company.group.values[place]
        current = values.clone()
        values.copy_(slot.best)
        scores = evaluate(self.backbone, [EvalRequest(company, place, slot.data.test)])[0]
        values.copy_(current)
        return TestResult(
            metrics={str(name): value for name, value in scores.metrics.items()},
            predictions=tuple(scores.predictions),
            labels=tuple(slot.data.test.labels.tolist()),
            collapsed=scores.collapsed,
        )

    def ablate(self, trial_id: str) -> Ablation | None:
        """See `trainables/training/layer_ablation.py`. What it takes counts in no resident's epoch."""
        company, place = self._find(trial_id)
        found = ablate(self.backbone, company.slots[place], company.group.layout)
        for slot in [s for c in (*self._companies, *self._aside.values()) for s in c.slots]:
            slot.started += found.seconds if found else 0.0
        return found

    def counts(self, trial_id: str) -> Counts:
        """Parameters of the trial that move, as they stand in memory: with two phases all that the first one moves.

        Where a mask ranks vectors with matrices, what it keeps of them counts as weights, too.
        """
        company, place = self._find(trial_id)
        layout, keep = company.group.layout, company.group.keep
        trained = [e for e in layout.entries if e.parameter.trained]
        sizes = {e.name: e.size for e in trained}
        matrices = {e.name for e in trained if e.is_matrix}
        if keep is not None and layout.method.phases == 1:
            sizes = {e.name: int(keep[place, e.start : e.stop].sum()) for e in trained}
            matrices |= {e.name for e in contenders(layout)}
        module = {n: size for n, size in sizes.items() if not n.startswith(("norm.", "head."))}
        return Counts(
            weights=sum(size for n, size in module.items() if n in matrices),
            module=sum(module.values()),
            trained=sum(sizes.values()),
            total=self.backbone.shape.total,
        )

    def state(self, trial_id: str) -> tuple[TrialState, dict[str, Tensor]]:
        """The slot and the tensors that a checkpoint needs, on the CPU: values, best, keep [P], moments [2, P], memory [n, P]."""
        company, place = self._find(trial_id)
        group, slot = company.group, company.slots[place]
        tensors = {"values": group.values[place], "moments": group.moments[:, place], "best": slot.best}
        if group.keep is not None:
            tensors["keep"] = group.keep[place]
        if len(group.memory):
            tensors["memory"] = group.memory[:, place]
        return slot, {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}

    def restore(
        self, trial: Trial, data: TaskData, tensors: dict[str, Tensor], epoch: int, progress: Sequence[Progress]
    ) -> TrialState:
        """Seat a trial again as `state` saw it after `epoch` epochs."""
        method = METHODS[trial.method](**trial.settings)
        layout = ParameterLayout(method, self.backbone, data.task.outputs)
        # Tensors read from a file lie at odd addresses, on which the last bits of matrix products depend.
        tensors = {name: tensor.clone() for name, tensor in tensors.items()}
        slot = TrialState(
            trial=trial, method=method, data=data, best=tensors["best"], epoch=epoch, progress=list(progress)
        )
        slot.step = epoch * slot.steps_per_epoch
        keep = tensors["keep"][None] if "keep" in tensors else None
        memory = tensors["memory"][:, None] if "memory" in tensors else None
        values, moments = tensors["values"][None], tensors["moments"][:, None]
        group = StackedParameters(layout, self.backbone, trial.recipe, values, moments, keep, memory)
        self._seat(StackedTrials(group, [slot]))
        return slot

    def _seat(self, new: StackedTrials) -> None:
        """Put a trial beside its likes, or open a group for it."""
        for company in self._companies:
            if company.can_stack_with(new):
                everyone = list(range(len(company.slots)))
                company.group = StackedParameters.of([company.group, new.group], [everyone, [0]])
                company.slots.append(new.slots[0])
                return
        self._companies.append(new)

    def _find(self, trial_id: str) -> tuple[StackedTrials, int]:
        for company in (*self._companies, *self._aside.values()):
            for place, slot in enumerate(company.slots):
                if slot.trial.id == trial_id:
                    return company, place
        raise KeyError(f"trial {trial_id} is not resident")

    def _train(self, slots: list[TrialState]) -> None:
        blocks = [len(company.slots) for company in self._companies]
        batches, added = [slot.batch() for slot in slots], [slot.method.virtual_tokens for slot in slots]
        rows = pack(batches, self.backbone.shape.heads, self.backbone.device, blocks, added)
        losses = self._backward(rows, slots)
        for company, each in zip(self._companies, losses, strict=True):
            self._update(company)
            company.group.losses += each
        for slot in slots:
            slot.step += 1

    def _backward(self, rows: Rows, slots: list[TrialState]) -> list[Tensor]:
        """Leave every trial's gradient in its group; returns the losses [G] of each group."""
        segments, start = [], 0
        for company in self._companies:
            stop = start + len(company.slots)
            drawn, noise = company.drawn(self.backbone), company.noise
            segments.append(Segment(company.group, start, stop, drawn=drawn, noise=noise))
            start = stop
        masks = dropout_of(slots, [slot.step for slot in slots], rows, self.backbone)
        logits = ForwardPass(self.backbone, segments, rows, masks).logits()
        losses = [
            losses_of(out, rows, s, c.slots[0].data.task.regression)
            for out, s, c in zip(logits, segments, self._companies, strict=True)
        ]
        penalties = [s.group.layout.method.penalty(s.everything()) for s in segments if s.group.layout.method.penalised]
        torch.cat([*losses, *penalties]).sum().backward()
        for company in self._companies:
            company.group.collect()
        return [each.detach() for each in losses]

    def _update(self, company: StackedTrials) -> None:
        slots = company.slots
        numbers = [
            [slot.trial.lr * slot.pace() for slot in slots],
            [slot.pace() for slot in slots],
            [slot.step + 1.0 - slot.phase.start for slot in slots],
            [float(len(slot.phase)) for slot in slots],
            [slot.trial.recipe.weight_decay for slot in slots],
            [slot.trial.recipe.clip for slot in slots],
        ]
        # One copy that nobody waits for: a tensor made on the device number by number stops the host until the device is idle.
        lr, share, step, total, decay, clip = sent(torch.tensor(numbers), self.backbone.device)[..., None]
        company.group.step(
            StepHyperparameters(lr=lr, share=share, step=step, total=total, decay=decay, clip=clip, noise=company.noise)
        )

    def _close_epochs(self, ended: list[TrialState]) -> None:
        found = [self._find(slot.trial.id) for slot in ended]
        questions = [EvalRequest(c, place, slot.data.validation) for (c, place), slot in zip(found, ended, strict=True)]
        for slot, (company, place), scores in zip(ended, found, evaluate(self.backbone, questions), strict=True):
            loss = float(company.group.losses[place]) / slot.steps_per_epoch
            company.group.losses[place] = 0
            slot.epoch += 1
            report = slot.record(scores.score, loss if np.isfinite(loss) else None, self._memory_mib())
            if report.best_epoch == slot.epoch and slot.epoch > slot.turn:
                slot.best = company.group.values[place].detach().clone()
            if slot.epoch == slot.turn and not slot.done:
                turn(slot, company.group, self.backbone)

    def _memory_mib(self) -> float:
        if self.backbone.device.type == "cuda":
            return torch.cuda.max_memory_allocated() / 2**20
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak / 2**20 if sys.platform == "darwin" else peak / 2**10
