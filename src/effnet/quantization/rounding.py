"""Fake quantization: rounding of a float tensor to INT8's levels, with the straight-through gradient."""

import functools
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from effnet.kernels import cpu_rounding

LOWEST, HIGHEST = -128, 127
# Adding and subtracting it rounds a float32 below 2^22 to the nearest even integer, twice as fast as `round`.
_ROUNDS = 1.5 * 2**23


@dataclass(frozen=True)
class Grid:
    """Output values of a quantizer of a whole tensor: scale * (q - zero_point), q in [-128, 127]."""

    scale: float
    zero_point: int

    @property
    def levels(self) -> tuple[int, int]:
        """The smallest and the largest level, in steps."""
        return LOWEST - self.zero_point, HIGHEST - self.zero_point

    @property
    def steps(self) -> float:
        """Inverse of the scale: values are multiplied by it before rounding and divided by it after."""
        return 1 / self.scale

    @property
    def low(self) -> float:
        """The smallest output value."""
        return self.levels[0] * self.scale

    @property
    def high(self) -> float:
        """The largest output value."""
        return self.levels[1] * self.scale

    @property
    def ends(self) -> tuple[float, float]:
        """Clipping bounds: half a step beyond the outermost levels."""
        return (self.levels[0] - 0.5) * self.scale, (self.levels[1] + 0.5) * self.scale


def round_to_grid(x: Tensor, grid: Grid) -> Tensor:
    """Round `x` to the grid, in the same shape, dtype and memory format; the gradient is that of a clamp."""
    rounded: Tensor = _Round.apply(x, grid)
    return rounded


def round_channels(weight: Tensor, steps: Tensor) -> Tensor:
    """Round weights by output channel, symmetric in [-127, 127]; the gradient passes unchanged.

    Args:
        weight: (out, ...).
        steps: inverse of each channel's scale, float32 (out, 1, ...).
    """
    rounded: Tensor = _RoundChannels.apply(weight, steps)
    return rounded


def rounded_silu(x: Tensor, grid: Grid, gate_grid: Grid) -> Tensor:
    """Return SiLU on two grids: q * gate, where q = grid(x) and gate = gate_grid(sigmoid(q))."""
    if _in_one_pass(x):
        out: Tensor = _SiLU.apply(x, grid, gate_grid)
        return out
    x = round_to_grid(x, grid)
    return x * round_to_grid(x.sigmoid(), gate_grid)


def _in_one_pass(x: Tensor) -> bool:
    # A compiler fuses PyTorch's operators itself, together with their neighbours.
    return not torch.compiler.is_compiling() and cpu_rounding.takes(x)


class _Round(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, grid: Grid) -> Tensor:
        ctx.save_for_backward(x)
        ctx.grid = grid
        if _in_one_pass(x):
            return torch.ops.effnet.round(x, grid.steps, *grid.levels)
        if x.is_cuda and not torch.compiler.is_compiling():
            return torch.fake_quantize_per_tensor_affine(x, grid.scale, grid.zero_point, LOWEST, HIGHEST)
        return _rounded(x.float() * grid.steps, *grid.levels).div_(grid.steps).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        (x,) = ctx.saved_tensors
        return torch.ops.aten.hardtanh_backward(gradient, x, *ctx.grid.ends), None


class _RoundChannels(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, steps: Tensor) -> Tensor:
        return _rounded(weight.float() * steps, -HIGHEST, HIGHEST).div_(steps).to(weight.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        return gradient, None


def _rounded(x: Tensor, low: int, high: int) -> Tensor:
    """Round to the nearest integers, ties to even, within [low, high]; in place."""
    if torch.compiler.is_compiling():  # a compiler that reassociates sums would cancel the constant
        return x.round().clamp(low, high)
    return x.clamp_(low, high).add_(_ROUNDS).sub_(_ROUNDS)


class _SiLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, grid: Grid, gate_grid: Grid) -> Tensor:
        ctx.save_for_backward(x)
        ctx.grids = grid, gate_grid
        values, _ = _silu_tables(grid, gate_grid)
        out: Tensor = torch.ops.effnet.round_table(x, grid.steps, *grid.levels, values)
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        (x,) = ctx.saved_tensors
        grid, gate_grid = ctx.grids
        _, slopes = _silu_tables(grid, gate_grid)
        return (
            torch.ops.effnet.round_table_backward(gradient, x, grid.steps, *grid.levels, slopes),
            None,
            None,
        )


@functools.lru_cache(maxsize=1024)
def _silu_tables(grid: Grid, gate_grid: Grid) -> tuple[Tensor, Tensor]:
    """Return the values and slopes of `rounded_silu` at each level of `grid`."""
    low, high = grid.levels
    x = torch.arange(low, high + 1, dtype=torch.float32, device="cpu") / grid.steps
    sigmoid = x.sigmoid()
    gate = round_to_grid(sigmoid, gate_grid)
    below, above = gate_grid.ends
    passes = (sigmoid > below) & (sigmoid < above)
    slopes = gate + passes * x * sigmoid * (1 - sigmoid)
    nan = float("nan")
    return (
        cpu_rounding.table_of(x * gate, outside=0.0, not_a_number=nan),
        cpu_rounding.table_of(slopes, outside=0.0, not_a_number=nan),
    )
