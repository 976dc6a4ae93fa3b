"""Depthwise convolutions on CPUs with a faster weight gradient.

It is for kernels 5 wide in channels-last, for which oneDNN has no vectorised code (`docs/performance.md`).
"""

import ctypes
import functools
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from effnet.runtime.cpp import load_kernels

_SOURCE = Path(__file__).with_suffix(".cpp")
_PARTS = 8  # of a batch, whose sums are added in order; enough for the threads to share any layer
_LANES = 8
_SMALL_MAP = 9  # pixels, up to which the library is slow for kernels 3 wide as well


def pays(channels: int, kernel: int, height: int, width: int) -> bool:
    """Return whether the kernel supports such a convolution and is faster than the library there."""
    return channels % _LANES == 0 and (kernel == 5 or (kernel == 3 and height * width <= _SMALL_MAP))


def depthwise(x: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
    """Depthwise convolution whose weight gradient is this module's; `is_available` must be true.

    Args:
        x: float32 (N, C, H, W) on the CPU.
        weight: float32 (C, 1, k, k), k 3 or 5.
        stride, padding: the same for rows and columns.
    """
    out: Tensor = _Depthwise.apply(x, weight, stride, padding)
    return out


def is_available() -> bool:
    """Return whether the kernel can be used on this machine; compile it the first time."""
    return load_kernels(_SOURCE) is not None


class _Depthwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.padding = stride, padding
        return F.conv2d(x, weight, None, stride, padding, groups=x.shape[1])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        x, weight = ctx.saved_tensors
        stride, padding = ctx.stride, ctx.padding
        grad_x = grad_weight = None
        if ctx.needs_input_grad[0]:
            grad_x = torch.ops.aten.convolution_backward(
                *(grad, x, weight, None),
                *([stride] * 2, [padding] * 2, [1, 1], False, [0, 0], x.shape[1]),
                [True, False, False],
            )[0]
        if ctx.needs_input_grad[1]:
            grad_weight = torch.ops.effnet.depthwise_weight_gradient(
                x, grad, weight.shape[-1], stride, padding
            )
            # The same memory; DDP wants the stride that channels-last weights have in their dimension of one.
            grad_weight = grad_weight.as_strided(weight.shape, weight.stride())
        return grad_x, grad_weight, None, None


torch.library.define(
    "effnet::depthwise_weight_gradient",
    "(Tensor x, Tensor grad, int kernel, int stride, int padding) -> Tensor",
)


@torch.library.impl("effnet::depthwise_weight_gradient", "CPU")
def _weight_gradient(x: Tensor, grad: Tensor, kernel: int, stride: int, padding: int) -> Tensor:
    x, grad = (t.contiguous(memory_format=torch.channels_last) for t in (x, grad))
    images, channels, height, width = x.shape
    parts = min(images, _PARTS)
    partial = x.new_empty(parts * kernel * kernel * channels)
    out = x.new_empty(channels, 1, kernel, kernel)
    pointers = (tensor.data_ptr() for tensor in (x, grad, partial, out))
    sizes = (parts, images, height, width, channels, *grad.shape[2:], kernel, stride, padding)
    _function()(*pointers, *sizes)
    return out


@torch.library.register_fake("effnet::depthwise_weight_gradient")
def _(x: Tensor, grad: Tensor, kernel: int, stride: int, padding: int) -> Tensor:
    return x.new_empty(x.shape[1], 1, kernel, kernel)


@functools.cache
def _function() -> Any:
    library = load_kernels(_SOURCE)
    assert library is not None, "see `is_available`"
    function = library.effnet_depthwise_weight_gradient
    function.restype = None
    function.argtypes = [ctypes.c_void_p] * 4 + [ctypes.c_int] * 10
    return function
