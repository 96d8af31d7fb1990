"""Frozen linear maps whose weights are stored in 4 bits (NF4), by bitsandbytes.

A weight is dequantised where a product needs it and not kept: once in the forward pass, and once more in the backward pass if the
input has a gradient, for all rows together and hence for all trials. So a device holds one dequantised weight at a time.
Weights are quantised on the CPU, so that all devices hold the same ones. Biases stay fp32.

Blocks are those of the flattened weight, and bitsandbytes is given one block per row, or one row if the last block is not full:
where the block size does not divide a row, bitsandbytes 0.50.2 uses the scales of wrong blocks on CPUs with AVX-512.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from search_spaces.quantization import Nf4


class QuantizedLinear(nn.Module):
    """y = x W^T + b for x [..., in], where W [out, in] is stored in 4 bits."""

    def __init__(self, weight: Tensor, bias: Tensor | None, how: Nf4, device: torch.device):
        """`weight` [out, in] and `bias` [out]: on the CPU; they are left as they are."""
        from bitsandbytes import functional

        super().__init__()
        self.bias = None if bias is None else nn.Parameter(bias.detach().clone(), requires_grad=False)
        self._dequantize = functional.dequantize_4bit
        self._shape = weight.shape
        row = how.block_size if weight.numel() % how.block_size == 0 else weight.numel()
        codes, state = functional.quantize_4bit(
            weight.detach().reshape(-1, row),
            blocksize=how.block_size,
            compress_statistics=how.double_quant,
            quant_type="nf4",
        )
        state.to(device)
        self._codes, self._state = codes.to(device), state

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = _Product.apply(x, self)
        return y

    def weight_in(self, dtype: torch.dtype) -> Tensor:
        """Returns the dequantised weight [out, in]: in bf16 that in fp32, rounded."""
        self._state.dtype = dtype
        blocks: Tensor = self._dequantize(self._codes, self._state)
        return blocks.view(self._shape)

    @property
    def stored(self) -> list[Tensor]:
        """The tensors in which the weight is stored. Different maps may share some of them."""
        state, nested = self._state, self._state.state2
        scales = [state.absmax, *((state.offset, nested.absmax, nested.code) if nested else ())]
        return [self._codes, state.code, *scales]


class _Product(torch.autograd.Function):
    """The product with a quantised weight. It can be differentiated twice: the gradient is computed by ordinary operators."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, linear: QuantizedLinear) -> Tensor:
        ctx.linear = linear
        bias = None if linear.bias is None else linear.bias.to(x.dtype)
        return F.linear(x, linear.weight_in(x.dtype), bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad @ ctx.linear.weight_in(grad.dtype), None


def num_bytes(module: nn.Module) -> int:
    """Returns the bytes of all tensors that a module holds, quantised weights included; shared ones count once."""
    tensors = [*module.parameters(), *module.buffers()]
    tensors += [tensor for each in module.modules() if isinstance(each, QuantizedLinear) for tensor in each.stored]
    return sum({t.data_ptr(): t.numel() * t.element_size() for t in tensors}.values())
