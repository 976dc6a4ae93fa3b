"""RMSprop's update on a CPU in one pass over memory, where PyTorch's operators take seven."""

import ctypes
import functools
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from effnet.runtime.cpp import load_kernels

_SOURCE = Path(__file__).with_suffix(".cpp")


def is_available() -> bool:
    """Return whether the update can be used on this machine; compile it the first time."""
    return load_kernels(_SOURCE) is not None


def takes(parameter: Tensor) -> bool:
    """Return whether `update` can be used for a parameter: contiguous float32 on a CPU, and a compiler is there."""
    return (
        parameter.device.type == "cpu"
        and parameter.dtype == torch.float32
        and parameter.is_contiguous()
        and is_available()
    )


def update(
    parameter: Tensor,
    gradient: Tensor,
    square_avg: Tensor,
    momentum_buffer: Tensor | None,
    *,
    lr: float,
    weight_decay: float,
    alpha: float,
    eps: float,
    momentum: float,
) -> None:
    """Update in place as `torch.optim.RMSprop` does, but for the rounding of square roots, which is exact here.

    Args:
        parameter, gradient, square_avg, momentum_buffer: of one shape; without momentum the last is None.
        lr, weight_decay, alpha, eps, momentum: see `torch.optim.RMSprop`.
    """
    tensors = (parameter, gradient, square_avg, momentum_buffer)
    pointers = [None if tensor is None else tensor.data_ptr() for tensor in tensors]
    _function()(*pointers, parameter.numel(), lr, weight_decay, alpha, 1 - alpha, eps, momentum)


@functools.cache
def _function() -> Any:
    library = load_kernels(_SOURCE)
    assert library is not None, "see `takes`"
    function = library.effnet_rmsprop
    function.restype = None
    function.argtypes = [*[ctypes.c_void_p] * 4, ctypes.c_int64, *[ctypes.c_float] * 6]
    return function
