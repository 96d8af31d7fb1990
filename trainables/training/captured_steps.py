"""Takes training steps by replaying CUDA graphs: the host then launches one graph instead of a thousand operators and more.

A graph repeats the same operators on the same tensors. So mini-batches are padded to sizes that recur (`PaddedSizes`), and
the inputs of a step are copied into the tensors that the graph reads. Sizes are kept per rounded length of the longest
example; the widths of the rows grow with the widest seen. Only steps of sizes that were seen before are captured, all others
run operator by operator, and so do all steps of trials whose step cannot be captured. When a trial joins or leaves, all graphs
are dropped. A trial's results are those of other steps within rounding, because products have other shapes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

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
# Graphs at a time. Each has its own inputs, of which dropout factors take the most memory; what a step computes shares memory.
MOST_GRAPHS = 4


@dataclass
class Captured:
    """Steps of the same padded sizes: how many were seen with these, and, once captured, the tensors to fill and the graph."""

    sizes: PaddedSizes
    seen: int = 0
    inputs: StepInputs | None = None
    replay: Call | None = None

    def fit(self, needed: PaddedSizes) -> None:
        """Widen the rows if a step needs it. The graph is then captured anew."""
        if any(need > width for need, width in zip(needed.widths, self.sizes.widths, strict=True)):
            self.sizes = padded_for(needed, self.sizes.widths)
            self.seen, self.inputs, self.replay = 0, None, None


class CapturedSteps:
    """The graphs of one engine, for the trials that took part in its last step."""

    def __init__(self, capture: Callable[[], Callable[[Call], Call]] | None = None):
        """`capture()` returns a function that turns a step into its replay without running it; by default `CudaGraphs`."""
        self._make_capture = capture or CudaGraphs
        # How many steps were replayed, and how many graphs were captured.
        self.replays = self.captures = 0
        # Why the step of the present trials cannot be captured; "" as long as it can.
        self.refused = ""
        self._stacks: list[StackedTrials] = []
        # By length of the longest example, the least recently used first.
        self._graphs: dict[tuple[int, bool], Captured] = {}
        self._capture = self._make_capture()

    def step(self, stacks: Sequence[StackedTrials], backbone: Backbone) -> bool:
        """Take one step of all trials on padded mini-batches. Returns False, with nothing done, if it is not to be captured."""
        if len(stacks) != len(self._stacks) or any(a is not b for a, b in zip(stacks, self._stacks, strict=True)):
            self._start(stacks)
        if self.refused:
            return False
        found = self._find(_needed(stacks))
        found.seen += 1
        if found.seen < SEEN_BEFORE:
            return False
        if found.inputs is None:
            found.inputs = draw(stacks, backbone, found.sizes)
        else:
            found.inputs.overwrite(draw(stacks, backbone, found.sizes, found.inputs))
        if found.seen == SEEN_BEFORE:
            compute(stacks, backbone, found.inputs)
            return True
        found.replay = found.replay or self._captured(stacks, backbone, found.inputs)
        if found.replay is None:
            return False
        found.replay()
        self.replays += 1
        return True

    def forget(self) -> None:
        """Drop all graphs and the memory that they hold. Steps are captured anew."""
        self._start([])

    def _start(self, stacks: Sequence[StackedTrials]) -> None:
        self._stacks, self._graphs, self._capture = list(stacks), {}, self._make_capture()
        private = any(stack.parameters.private_weights for stack in stacks)
        self.refused = "the trial trains backbone weights" if private else ""

    def _find(self, needed: PaddedSizes) -> Captured:
        sizes = padded_for(needed)
        key = (sizes.longest, sizes.exact)
        found = self._graphs.pop(key, None) or Captured(sizes)
        found.fit(needed)
        self._graphs[key] = found
        kept = [k for k, each in self._graphs.items() if each.inputs is not None]
        for key in kept[:-MOST_GRAPHS]:
            del self._graphs[key]
        return found

    def _captured(self, stacks: Sequence[StackedTrials], backbone: Backbone, inputs: StepInputs) -> Call | None:
        try:
            replay = self._capture(lambda: compute(stacks, backbone, inputs))
        except (
            Exception
        ) as error:  # whatever cannot be captured runs operator by operator, which raises what is really wrong
            for stack in stacks:
                stack.parameters.zero_grad()
            self._graphs = {}
            self.refused = f"{type(error).__name__}: {error}"
            methods = ", ".join(sorted({stack.states[0].trial.method for stack in stacks}))
            log.info("steps of %s are not captured: %s", methods, self.refused)
            return None
        self.captures += 1
        return replay


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
