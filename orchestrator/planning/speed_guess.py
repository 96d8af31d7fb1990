"""Guesses how fast a model trains from its size, an order of magnitude for where nothing was timed."""

from __future__ import annotations

from trainables.methods.spec import Shape

# Floating-point operations of a training step per parameter and token: a forward and a backward pass. What a core and a GPU
# reach of them per second.
OPERATIONS, CORE_SPEED, GPU_SPEED = 5.0, 2.5e10, 2e13


def token_seconds(shape: Shape, gpu: bool) -> float:
    """Return the seconds that one core, or one GPU, takes to train on a token."""
    matrices = sum(tensor.size for tensor in shape.tensors if tensor.part == "layer" and tensor.is_matrix)
    return OPERATIONS * matrices / (GPU_SPEED if gpu else CORE_SPEED)
