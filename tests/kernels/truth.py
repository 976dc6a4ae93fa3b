"""Expected results of the kernels, written with PyTorch's own layers, and the sizes that they are tried on."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from effnet.kernels.operators import depthwise


class Case(NamedTuple):
    """A convolution: (N, C, H, W), its kernel, stride, zeros above and before, activation, and the tile."""

    shape: tuple[int, int, int, int]
    kernel: int
    stride: int
    top_left: tuple[int, int]
    activation: str
    tile: int


# Odd and even sizes, one pixel, rows and strips that end inside a tile, several programs a map, channels that are no
# multiple of a tile's, symmetric padding and each that "SAME" leads to.
CASES = (
    Case((2, 5, 7, 9), 3, 1, (1, 1), "silu", 0),
    Case((1, 3, 6, 11), 5, 1, (2, 2), "silu", 2),
    Case((1, 40, 9, 8), 5, 2, (2, 1), "relu6", 1),
    Case((2, 8, 6, 7), 3, 2, (0, 1), "silu", 2),
    Case((1, 4, 35, 3), 3, 1, (1, 1), "silu", 2),
    Case((1, 4, 3, 37), 5, 2, (2, 2), "silu", 1),
    Case((1, 8, 6, 7), 3, 2, (1, 1), "none", 0),
    Case((3, 8, 1, 1), 5, 2, (2, 2), "silu", 0),
)


class Inputs(NamedTuple):
    """Arguments of the operator and gradients of its outputs."""

    x: Tensor
    weight: Tensor
    scale: Tensor | None
    shift: Tensor | None

    def given(self) -> list[Tensor]:
        return [tensor for tensor in self if tensor is not None]

    def doubled(self) -> "Inputs":
        return Inputs(*(t.detach().double().requires_grad_() if t is not None else None for t in self))


def inputs(case: Case, dtype: torch.dtype, device: str = "cpu") -> Inputs:
    channels = case.shape[1]
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    x = torch.randn(case.shape, dtype=dtype, device=device).to(memory_format=torch.channels_last)
    weight = torch.randn(channels, 1, case.kernel, case.kernel, dtype=dtype, device=device)
    if case.activation == "none":
        return Inputs(x.requires_grad_(), weight.requires_grad_(), None, None)
    scale = torch.rand(channels, dtype=wide, device=device) + 0.5
    shift = torch.randn(channels, dtype=wide, device=device)
    return Inputs(*(tensor.requires_grad_() for tensor in (x, weight, scale, shift)))


def operator(case: Case, given: Inputs) -> tuple[Tensor, Tensor, Tensor]:
    return depthwise(*given, case.kernel, case.stride, *case.top_left, case.activation, case.tile)


def truth(case: Case, given: Inputs) -> tuple[Tensor, Tensor, Tensor]:
    """Output, mean and variance by PyTorch's layers, to be differentiated by autograd."""
    x = given.x
    if given.scale is not None and given.shift is not None:
        x = x * given.scale.view(1, -1, 1, 1) + given.shift.view(1, -1, 1, 1)
        x = F.silu(x) if case.activation == "silu" else F.relu6(x)
    (top, left), k, s = case.top_left, case.kernel, case.stride
    height, width = x.shape[2:]
    # More zeros than needed behind; what the convolution makes of the rest is cut off.
    y = F.conv2d(F.pad(x, (left, 2 * k, top, 2 * k)), given.weight, stride=s, groups=x.shape[1])
    y = y[:, :, : -(-height // s), : -(-width // s)]
    variance, mean = torch.var_mean(y, (0, 2, 3), correction=0)
    return y, mean, variance


def relative_error(found: Tensor, true: Tensor) -> float:
    """||found - true|| / ||true||; 0 where both are zero."""
    error = torch.linalg.vector_norm(found.double() - true)
    return (error / torch.linalg.vector_norm(true).clamp(min=1e-12)).item()


def check(case: Case, dtype: torch.dtype, tolerance: float, device: str = "cpu") -> None:
    """Compare outputs and all gradients, with random gradients of all outputs, against float64."""
    given = inputs(case, dtype, device)
    found = operator(case, given)
    exact = given.doubled()
    true = truth(case, exact)
    arriving = [torch.randn_like(output) for output in found]
    gradients = torch.autograd.grad(found, given.given(), arriving)
    true_gradients = torch.autograd.grad(true, exact.given(), [g.double() for g in arriving])
    assert found[0].is_contiguous(memory_format=torch.channels_last)
    assert [t.dtype for t in gradients] == [t.dtype for t in given.given()]
    names = ("y", "mean", "variance", "x", "weight", "scale", "shift")
    for name, a, b in zip(names, (*found, *gradients), (*true, *true_gradients), strict=False):
        assert relative_error(a.detach(), b.detach()) < tolerance, name
