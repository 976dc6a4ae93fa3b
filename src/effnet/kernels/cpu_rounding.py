"""Fake quantization on CPUs in one pass over memory, where PyTorch's operators take five.

A function of a rounded value has 256 values, so it and its gradient are looked up.
"""

import ctypes
import functools
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from effnet.runtime.cpp import load_kernels

_SOURCE = Path(__file__).with_suffix(".cpp")
_NOT_A_NUMBER, OUTSIDE = 256, 511
"""places in a table, after those of the levels"""
TABLE = OUTSIDE + 1
"""entries of a table"""


def takes(x: Tensor) -> bool:
    """Return whether this module's operators take `x`: dense float32 on a CPU, and a compiler is there."""
    return (
        x.device.type == "cpu"
        and x.dtype == torch.float32
        and (x.is_contiguous() or (x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last)))
        and load_kernels(_SOURCE) is not None
    )


def table_of(values: Tensor, *, outside: float, not_a_number: float) -> Tensor:
    """Return a table for `round_table` and its gradient.

    Args:
        values: float32 (levels,), at most 256, from the lowest level up.
        outside: the gradient's value beyond the grid.
        not_a_number: for NaN.
    """
    table = values.new_zeros(TABLE)
    table[: len(values)] = values
    table[_NOT_A_NUMBER], table[OUTSIDE] = not_a_number, outside
    return table


_SIGNATURES = {
    "round": "(Tensor x, float steps, int low, int high) -> Tensor",
    "round_table": "(Tensor x, float steps, int low, int high, Tensor table) -> Tensor",
    "round_table_backward": "(Tensor grad, Tensor x, float steps, int low, int high, Tensor slopes) -> Tensor",
}
for _name, _signature in _SIGNATURES.items():
    torch.library.define(f"effnet::{_name}", _signature)


@torch.library.impl("effnet::round", "CPU")
def _round(x: Tensor, steps: float, low: int, high: int) -> Tensor:
    y = torch.empty_like(x)
    _functions().effnet_round(x.data_ptr(), y.data_ptr(), x.numel(), steps, low, high)
    return y


@torch.library.impl("effnet::round_table", "CPU")
def _round_table(x: Tensor, steps: float, low: int, high: int, table: Tensor) -> Tensor:
    y = torch.empty_like(x)
    _functions().effnet_round_table(x.data_ptr(), y.data_ptr(), x.numel(), steps, low, high, table.data_ptr())
    return y


@torch.library.impl("effnet::round_table_backward", "CPU")
def _round_table_backward(
    grad: Tensor, x: Tensor, steps: float, low: int, high: int, slopes: Tensor
) -> Tensor:
    out = torch.empty_like(x)
    if grad.stride() != x.stride():
        grad = torch.empty_like(x).copy_(grad)
    # What rounds to an end of the grid is still within it.
    ends = (low - 0.5) / steps, (high + 0.5) / steps
    pointers = (tensor.data_ptr() for tensor in (grad, x, out))
    _functions().effnet_round_table_backward(*pointers, x.numel(), steps, low, high, *ends, slopes.data_ptr())
    return out


@torch.library.register_fake("effnet::round")
@torch.library.register_fake("effnet::round_table")
def _(x: Tensor, *_grid: Any) -> Tensor:
    return torch.empty_like(x)


@torch.library.register_fake("effnet::round_table_backward")
def _(grad: Tensor, x: Tensor, *_grid: Any) -> Tensor:
    return torch.empty_like(x)


@functools.cache
def _functions() -> ctypes.CDLL:
    library = load_kernels(_SOURCE)
    assert library is not None, "see `takes`"
    pointer, number, count = ctypes.c_void_p, ctypes.c_float, ctypes.c_int64
    kinds = {
        "effnet_round": [pointer] * 2 + [count] + [number] * 3,
        "effnet_round_table": [pointer] * 2 + [count] + [number] * 3 + [pointer],
        "effnet_round_table_backward": [pointer] * 3 + [count] + [number] * 5 + [pointer],
    }
    for name, arguments in kinds.items():
        function = getattr(library, name)
        function.restype, function.argtypes = None, arguments
    return library
