"""Operators of PyTorch over the kernels: `effnet::depthwise` with its gradient, and `effnet::moments`.

On CUDA tensors they run the Triton kernels, which `torch.compile` sees and takes into its graph; elsewhere, or
without Triton, their plain PyTorch versions. With TRITON_INTERPRET=1 the kernels run on a CPU, which is for tests.
"""

from typing import Any

import torch
from torch import Tensor
from torch.library import triton_op, wrap_triton

from effnet.kernels import reference
from effnet.kernels.available import INTERPRETING, has_triton
from effnet.kernels.geometry import Geometry
from effnet.kernels.statistics import channel_elements
from effnet.kernels.tiles import TILES, Tile

NONE = "none"


def runs_kernels(x: Tensor) -> bool:
    """Return whether the operators run kernels on `x`, not plain PyTorch."""
    return (x.is_cuda or INTERPRETING) and has_triton()


@triton_op("effnet::depthwise", mutates_args=())
def depthwise(
    x: Tensor,
    weight: Tensor,
    scale: Tensor | None,
    shift: Tensor | None,
    kernel: int,
    stride: int,
    top: int,
    left: int,
    activation: str,
    tile: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Depthwise convolution with what stands before and after it: BatchNorm's application and statistics.

    Args:
        x: (N, C, H, W), any floating type; read as channels-last.
        weight: (C, 1, kernel, kernel), of the same type.
        scale, shift: (C,), float32 (float64 for float64 `x`); None for neither them nor the activation.
        kernel: side of the convolution's kernel, odd.
        stride: 1 or 2.
        top, left: zeros around the activated image; those below and to the right follow from ceil(size / stride).
        activation: ``none``, ``silu`` or ``relu6``.
        tile: index into `effnet.kernels.tiles.TILES`.

    Returns:
        y: depthwise convolution of act(x * scale + shift), of x's type, channels-last,
            (N, C, ceil(H / stride), ceil(W / stride)).
        mean, variance: of each channel of y, biased, float32 (float64), (C,).
    """
    geometry = Geometry(kernel, stride, top, left, *x.shape[2:])
    if not runs_kernels(x):
        with torch.autocast(x.device.type, enabled=False):
            return reference.forward(x, weight, scale, shift, geometry, activation)
    from effnet.kernels.triton_depthwise import forward_kernel

    batch, channels = x.shape[:2]
    x = x.contiguous(memory_format=torch.channels_last)
    y = torch.empty(
        (batch, channels, geometry.out_height, geometry.out_width),
        dtype=x.dtype,
        device=x.device,
        memory_format=torch.channels_last,
    )
    division, grid = _division(TILES[tile], batch, channels, geometry.out_height, geometry.out_width)
    partials = torch.empty((3, grid[0], channels), dtype=_sums_dtype(x), device=x.device)
    _launch(forward_kernel)[grid](
        x,
        weight.contiguous(),
        weight if scale is None else scale,
        weight if shift is None else shift,
        y,
        partials,
        **_constants(channels, geometry),
        NORMALISED=scale is not None,
        ACTIVATION=activation,
        **division,
    )
    count, mean, squares = partials.unbind()
    total = count.sum(0)
    mean_of_all = (mean * count).sum(0) / total
    variance = (squares + count * (mean - mean_of_all).square()).sum(0) / total
    return y, mean_of_all, variance


@triton_op("effnet::depthwise_backward", mutates_args=())
def depthwise_backward(
    x: Tensor,
    weight: Tensor,
    scale: Tensor | None,
    shift: Tensor | None,
    y: Tensor,
    grad_y: Tensor,
    constants: Tensor,
    slopes: Tensor,
    kernel: int,
    stride: int,
    top: int,
    left: int,
    activation: str,
    tile: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of `depthwise`, in one pass over x, y and grad_y.

    Args:
        x, weight, scale, shift, kernel, stride, top, left, activation, tile: as there.
        y: its output.
        grad_y: gradient of y alone, like y.
        constants, slopes: (C,) float32 (float64); what arrives through mean and variance is constants + slopes * y.

    Returns:
        Gradients of x, weight, scale and shift; the last two are zeros where these are None.
    """
    geometry = Geometry(kernel, stride, top, left, *x.shape[2:])
    if not runs_kernels(x):
        whole = grad_y.to(constants.dtype) + constants[:, None, None] + slopes[:, None, None] * y
        with torch.autocast(x.device.type, enabled=False):
            return reference.backward(x, weight, scale, shift, whole, geometry, activation)
    from effnet.kernels.triton_depthwise import backward_kernel

    batch, channels = x.shape[:2]
    x, y, grad_y = (t.contiguous(memory_format=torch.channels_last) for t in (x, y, grad_y))
    grad_x = torch.empty_like(x)
    division, grid = _division(TILES[tile], batch, channels, -(-geometry.height // stride), geometry.width)
    partials = torch.empty((kernel**2 + 2, grid[0], channels), dtype=_sums_dtype(x), device=x.device)
    _launch(backward_kernel)[grid](
        x,
        weight.contiguous(),
        weight if scale is None else scale,
        weight if shift is None else shift,
        y,
        grad_y,
        constants,
        slopes,
        grad_x,
        partials,
        **_constants(channels, geometry),
        NORMALISED=scale is not None,
        ACTIVATION=activation,
        **division,
    )
    sums = partials.sum(1)
    grad_weight = sums[:-2].t().reshape(weight.shape).to(weight.dtype)
    return grad_x, grad_weight, sums[-1].clone(), sums[-2].clone()


def _division(
    tile: Tile, batch: int, channels: int, rows: int, columns: int
) -> tuple[dict[str, int], tuple[int, int]]:
    """Return the constants by which a kernel divides a tensor, and its grid."""
    rows_each = min(tile.rows, rows)
    chunks, groups = -(-rows // rows_each), -(-columns // (tile.strips * tile.columns))
    division = {
        "STRIPS": tile.strips,
        "COLUMNS": tile.columns,
        "CHANNELS": tile.channels,
        "ROWS": rows_each,
        "num_warps": tile.warps,
    }
    return division, (batch * chunks * groups, -(-channels // tile.channels))


def _constants(channels: int, geometry: Geometry) -> dict[str, int]:
    return {
        "C": channels,
        "H": geometry.height,
        "W": geometry.width,
        "OUT_H": geometry.out_height,
        "OUT_W": geometry.out_width,
        "K": geometry.kernel,
        "STRIDE": geometry.stride,
        "TOP": geometry.top,
        "LEFT": geometry.left,
    }


def _launch(kernel: Any) -> Any:
    # The interpreter's stand-in for a kernel is nothing that a compiler could take in.
    return kernel if INTERPRETING else wrap_triton(kernel)


def _sums_dtype(x: Tensor) -> torch.dtype:
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def _fake_forward(
    x: Tensor,
    weight: Tensor,
    scale: Tensor | None,
    shift: Tensor | None,
    kernel: int,
    stride: int,
    top: int,
    left: int,
    activation: str,
    tile: int,
) -> tuple[Tensor, Tensor, Tensor]:
    geometry = Geometry(kernel, stride, top, left, *x.shape[2:])
    shape = (*x.shape[:2], geometry.out_height, geometry.out_width)
    y = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)
    mean = torch.empty(x.shape[1], dtype=_sums_dtype(x), device=x.device)
    return y, mean, torch.empty_like(mean)


def _fake_backward(
    x: Tensor,
    weight: Tensor,
    scale: Tensor | None,
    shift: Tensor | None,
    y: Tensor,
    grad_y: Tensor,
    constants: Tensor,
    slopes: Tensor,
    kernel: int,
    stride: int,
    top: int,
    left: int,
    activation: str,
    tile: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    of_channels = torch.empty(x.shape[1], dtype=_sums_dtype(x), device=x.device)
    grad_x = torch.empty_like(x, memory_format=torch.channels_last)
    return grad_x, torch.empty_like(weight), of_channels, torch.empty_like(of_channels)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    x, weight, scale, shift, *ctx.settings = inputs
    y, mean, _ = output
    ctx.save_for_backward(x, weight, scale, shift, y, mean)


def _gradients(ctx: Any, grad_y: Tensor, grad_mean: Tensor, grad_variance: Tensor) -> tuple[Any, ...]:
    x, weight, scale, shift, y, mean = ctx.saved_tensors
    constants, slopes = _through_moments(y, mean, grad_mean, grad_variance)
    gradients = depthwise_backward(
        x, weight, scale, shift, y, grad_y.to(y.dtype), constants, slopes, *ctx.settings
    )
    return (
        *gradients[:2],
        *(gradients[2:] if scale is not None else (None, None)),
        *[None] * len(ctx.settings),
    )


def _through_moments(
    x: Tensor, mean: Tensor, grad_mean: Tensor, grad_variance: Tensor
) -> tuple[Tensor, Tensor]:
    """The gradient of x that arrives through its channels' mean and variance: (constants, slopes) * (1, x)."""
    number = channel_elements(x)
    slopes = 2 * grad_variance / number
    return grad_mean / number - slopes * mean, slopes


depthwise.register_fake(_fake_forward)
depthwise.register_autograd(_gradients, setup_context=_keep)
depthwise_backward.register_fake(_fake_backward)


@triton_op("effnet::moments", mutates_args=())
def moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance of each channel of x (N, C, H, W): float32 (float64 for float64), (C,) each.

    It needs no kernel: what makes it an operator is that it keeps x itself for its gradient, not a wider copy.
    """
    return reference.moments(x)


def _keep_moments(ctx: Any, inputs: tuple[Tensor], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(inputs[0], output[0])


def _moments_gradient(ctx: Any, grad_mean: Tensor, grad_variance: Tensor) -> Tensor:
    x, mean = ctx.saved_tensors
    constants, slopes = _through_moments(x, mean, grad_mean, grad_variance)
    return (constants[:, None, None] + slopes[:, None, None] * x).to(x.dtype)


def _fake_moments(x: Tensor) -> tuple[Tensor, Tensor]:
    mean = torch.empty(x.shape[1], dtype=_sums_dtype(x), device=x.device)
    return mean, torch.empty_like(mean)


moments.register_fake(_fake_moments)
moments.register_autograd(_moments_gradient, setup_context=_keep_moments)
