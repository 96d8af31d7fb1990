"""Takes training steps by replaying CUDA graphs: the host then launches one graph instead of a thousand operators and more.

A graph repeats the same operators on the same tensors. So mini-batches are padded to sizes that recur (`PaddedSizes`), and
the inputs of a step are copied into the tensors that the graph reads. Sizes are kept per rounded length of the longest
example; the widths of the rows grow with the widest seen. Only steps of sizes that were seen before are captured, all others
run operator by operator, and so do all steps of trials whose step cannot be captured. When a trial joins or leaves, all graphs
are dropped. A trial's results are those of other steps within rounding, because products have other shapes.

Between steps, graphs hold memory: each its inputs, and all together what a step computes. So there is a limit to their inputs,
and `refuse` gives everything back where the memory is needed. Without graphs, trials train more slowly and need less memory.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from trainables.backbone.backbone import Backbone
from trainables.backbone.packing import PaddedSizes, needed_sizes
from trainables.training.stacked_trials import StackedTrials
from trainables.training.training_step import StepInputs, compute, draw

log = logging.getLogger(__name__)
Call = Callable[[], None]
# Steps of the same sizes before one is captured. They make what a backbone computes once and keeps; the last of them is padded
# as the captured one, so that all kernels are loaded.
SEEN_BEFORE = 2
# Graphs at a time, and the largest part of the device's free memory that their inputs may take, those that they have included.
MOST_GRAPHS, MOST_MEMORY = 16, 1 / 3


class Capture(Protocol):
    """Turns steps into their replays."""

    def __call__(self, step: Call) -> Call:
        """Return a function that takes the step; the step itself is not run."""

    def free_memory(self) -> float:
        """Return the bytes of the device that nothing occupies."""

    def give_back(self) -> None:
        """Return memory that is no longer used to the device. The peak so far no longer counts as what a step needs."""


@dataclass
class Captured:
    """Steps of the same padded sizes: how many were seen with these, and, once captured, the tensors to fill and the graph."""

    sizes: PaddedSizes
    seen: int = 0
    inputs: StepInputs | None = None
    replay: Call | None = None

    @property
    def num_bytes(self) -> int:
        return self.inputs.num_bytes if self.inputs else 0

    def fit(self, needed: PaddedSizes) -> None:
        """Widen the rows if a step needs it. The graph is then captured anew."""
        if any(need > width for need, width in zip(needed.widths, self.sizes.widths, strict=True)):
            self.sizes = padded_for(needed, self.sizes.widths)
            self.seen, self.inputs, self.replay = 0, None, None


class CapturedSteps:
    """The graphs of one engine, for the trials that took part in its last step."""

    # Whether steps on a quantised backbone are captured as well.
    quantized = False

    def __init__(self, make_capture: Callable[[], Capture] | None = None):
        """`make_capture`: makes what captures the steps of the same trials; by default `CudaGraphs`."""
        self._make_capture = make_capture or CudaGraphs
        # How many steps were replayed, and how many graphs were captured.
        self.replays = self.captures = 0
        # Why no step of the present trials is captured; "" as long as steps are.
        self.refused = ""
        self._stacks: list[StackedTrials] = []
        # By length of the longest example, the least recently used first.
        self._graphs: dict[tuple[int, bool], Captured] = {}
        self._capture = self._make_capture()

    @property
    def num_bytes(self) -> int:
        """The memory of the inputs that are held between steps. What graphs use during steps comes on top."""
        return sum(each.num_bytes for each in self._graphs.values())

    def step(self, stacks: Sequence[StackedTrials], backbone: Backbone) -> bool:
        """Take one step of all trials on padded mini-batches. Returns False, with nothing done, if it is not to be captured.

        A step that raises, because memory ran out or because something cannot be captured, is not tried again with these
        trials: all graphs are dropped, and False is returned. Run operator by operator it raises what is really wrong.
        """
        if len(stacks) != len(self._stacks) or any(a is not b for a, b in zip(stacks, self._stacks, strict=True)):
            self._start(stacks)
            if backbone.quantized and not self.quantized:  # bitsandbytes' kernels have not been tried inside a graph
                self.refused = "the backbone is quantised"
        if self.refused:
            return False
        try:
            return self._step(stacks, backbone)
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
        methods = ", ".join(sorted({stack.states[0].trial.method for stack in stacks}))
        log.info("steps of %s are not captured: %s", methods, reason)
        for stack in stacks:
            stack.parameters.zero_grad()
        self.refuse(reason)  # after the except clause, whose traceback holds tensors of the step
        return False

    def forget(self) -> None:
        """Drop all graphs. Steps are captured anew."""
        self._start([])

    def refuse(self, reason: str) -> None:
        """Drop all graphs, give their memory back, and capture no more steps until a trial joins or leaves."""
        self._graphs, self.refused = {}, reason
        self._capture.give_back()

    def _start(self, stacks: Sequence[StackedTrials]) -> None:
        self._stacks, self._graphs, self._capture = list(stacks), {}, self._make_capture()
        private = any(stack.parameters.private_weights for stack in stacks)
        self.refused = "the trial trains backbone weights" if private else ""

    def _step(self, stacks: Sequence[StackedTrials], backbone: Backbone) -> bool:
        found = self._find(_needed(stacks))
        found.seen += 1
        if found.seen < SEEN_BEFORE:
            return False
        if found.inputs is None:
            found.inputs = draw(stacks, backbone, found.sizes)
            self._drop_oldest()
        else:
            found.inputs.overwrite(draw(stacks, backbone, found.sizes, found.inputs))
        inputs = found.inputs
        if found.seen == SEEN_BEFORE:
            compute(stacks, backbone, inputs)
            return True
        if found.replay is None:
            found.replay = self._capture(lambda: compute(stacks, backbone, inputs))
            self.captures += 1
        found.replay()
        self.replays += 1
        return True

    def _find(self, needed: PaddedSizes) -> Captured:
        """Returns what is held for steps of these sizes, now the most recently used."""
        sizes = padded_for(needed)
        key = (sizes.longest, sizes.exact)
        found = self._graphs.pop(key, None) or Captured(sizes)
        found.fit(needed)
        self._graphs[key] = found
        return found

    def _drop_oldest(self) -> None:
        """Keep within the limits to graphs and to the memory of their inputs. The most recently used ones stay."""
        most = MOST_MEMORY * (self._capture.free_memory() + self.num_bytes)
        held = [key for key, each in self._graphs.items() if each.inputs is not None]
        for i, key in enumerate(held[:-1]):
            if len(held) - i <= MOST_GRAPHS and self.num_bytes <= most:
                break
            del self._graphs[key]


class CudaGraphs:
    """Captures steps as CUDA graphs. They share the memory for what a step computes, since none leaves anything there."""

    def __init__(self) -> None:
        self._pool = torch.cuda.graph_pool_handle()

    def __call__(self, step: Call) -> Call:
        graph, stream = torch.cuda.CUDAGraph(), torch.cuda.current_stream()
        try:
            with torch.cuda.graph(graph, pool=self._pool):
                step()
        finally:
            torch.cuda.set_stream(stream)  # after a failure torch stays on the stream on which it captured
        replay: Call = graph.replay
        return replay

    def free_memory(self) -> float:
        free, _ = torch.cuda.mem_get_info()
        return free + torch.cuda.memory_reserved() - torch.cuda.memory_allocated()

    def give_back(self) -> None:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def captured_on(device: torch.device) -> CapturedSteps | None:
    """Returns what captures the steps of a new engine on this device: only CUDA has graphs."""
    return CapturedSteps() if device.type == "cuda" else None


def padded_for(needed: PaddedSizes, at_least: Sequence[int] | None = None) -> PaddedSizes:
    """Returns the sizes to which such a step is padded; rows at least as wide as `at_least`. Exact sizes stay as they are."""
    if needed.exact:
        return needed
    widths = [rounded_up(max(pair)) for pair in zip(needed.widths, at_least or needed.widths, strict=True)]
    return PaddedSizes(widths=tuple(widths), examples=needed.examples, longest=rounded_up(needed.longest), exact=False)


def rounded_up(number: int) -> int:
    """Returns the next multiple of 8, from 128 on of an eighth to a sixteenth of the number: few sizes, little padding."""
    unit = max(8, 1 << max(0, number.bit_length() - 4))
    return -(-number // unit) * unit


def _needed(stacks: Sequence[StackedTrials]) -> PaddedSizes:
    states = [state for stack in stacks for state in stack.states]
    return needed_sizes(
        [state.batch() for state in states],
        [len(stack) for stack in stacks],
        [state.method.virtual_tokens for state in states],
        [min(state.trial.batch_size, len(state.data.train)) for state in states],
    )
