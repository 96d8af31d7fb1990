"""The bytes that a pretrained model occupies on a device, computed from its shape. Imports neither torch nor transformers."""

from __future__ import annotations

import math

from search_spaces.quantization import Nf4
from trainables.methods.spec import Shape

# With double quantisation, the scales of so many blocks are quantised together.
SCALES_TOGETHER = 256
# Of each quantised map: the 16 values that NF4 codes stand for, and the 256 values that codes of scales stand for.
TABLE, SCALES_TABLE = 4 * 16, 4 * 256


def stored_bytes(shape: Shape, nf4: Nf4 | None) -> int:
    """Returns the bytes of the parameters that the engine loads: in fp32, or with linear maps quantised as `nf4` says."""
    sizes = [math.prod(shape.ends(site)) for site in shape.maps] * shape.layers
    if nf4 is None:
        return 4 * shape.encoder
    return 4 * (shape.encoder - sum(sizes)) + sum(_quantized_bytes(size, nf4) for size in sizes)


def _quantized_bytes(weights: int, nf4: Nf4) -> int:
    """Returns the bytes of a quantised map's weights: half a byte each, and a scale of each block."""
    blocks = math.ceil(weights / nf4.block_size)
    # Quantised scales are bytes; they have scales of their own, and a mean that was subtracted before.
    double = blocks + 4 * math.ceil(blocks / SCALES_TOGETHER) + 4 + SCALES_TABLE
    scales = double if nf4.double_quant else 4 * blocks
    return math.ceil(weights / 2) + scales + TABLE
