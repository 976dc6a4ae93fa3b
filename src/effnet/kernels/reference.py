"""Plain PyTorch version of the operators: the kernels are tested against it, and it runs where there is no GPU."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from effnet.kernels.geometry import Geometry

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"none": lambda x: x, "silu": F.silu, "relu6": F.relu6}


def forward(
    x: Tensor, weight: Tensor, scale: Tensor | None, shift: Tensor | None, geometry: Geometry, activation: str
) -> tuple[Tensor, Tensor, Tensor]:
    """Output, mean and variance of `effnet::depthwise`; see there."""
    wide = _wide(x)
    y = _convolved(_active(wide, scale, shift, activation), weight.to(wide.dtype), geometry).to(x.dtype)
    return y.contiguous(memory_format=torch.channels_last), *moments(y)


def backward(
    x: Tensor,
    weight: Tensor,
    scale: Tensor | None,
    shift: Tensor | None,
    gradient: Tensor,
    geometry: Geometry,
    activation: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of x, weight, scale and shift, given the whole gradient of the output."""
    wide = _wide(x)
    channels = x.shape[1]
    padded, grad_weight, _ = torch.ops.aten.convolution_backward(
        gradient.to(wide.dtype),
        _padded(_active(wide, scale, shift, activation), geometry),
        weight.to(wide.dtype),
        None,
        [geometry.stride] * 2,
        [0, 0],
        [1, 1],
        False,
        [0, 0],
        channels,
        [True, True, False],
    )
    grad = padded[
        :, :, geometry.top : geometry.top + geometry.height, geometry.left : geometry.left + geometry.width
    ]
    if scale is None or shift is None:
        empty = x.new_zeros(channels, dtype=wide.dtype)
        grad_scale, grad_shift, grad_x = empty, empty.clone(), grad
    else:
        grad = grad * _slope(_affine(wide, scale, shift), activation)
        grad_scale, grad_shift = (grad * wide).sum((0, 2, 3)), grad.sum((0, 2, 3))
        grad_x = grad * scale.to(wide.dtype)[:, None, None]
    grad_x = grad_x.to(x.dtype).contiguous(memory_format=torch.channels_last)
    return grad_x, grad_weight.to(weight.dtype), grad_scale, grad_shift


def moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and (biased) variance of each channel of (N, C, H, W), in float32, or float64 for float64."""
    variance, mean = torch.var_mean(_wide(x), (0, 2, 3), correction=0)
    return mean, variance


def _wide(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()


def _affine(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    return x * scale.to(x.dtype)[:, None, None] + shift.to(x.dtype)[:, None, None]


def _active(x: Tensor, scale: Tensor | None, shift: Tensor | None, activation: str) -> Tensor:
    if scale is None or shift is None:
        return x
    return ACTIVATIONS[activation](_affine(x, scale, shift))


def _slope(before: Tensor, activation: str) -> Tensor:
    match activation:
        case "silu":
            sigmoid = before.sigmoid()
            return sigmoid * (1 + before * (1 - sigmoid))
        case "relu6":
            return ((before > 0) & (before < 6)).to(before.dtype)
        case _:
            return torch.ones_like(before)


def _padded(x: Tensor, geometry: Geometry) -> Tensor:
    return F.pad(x, (geometry.left, geometry.right, geometry.top, geometry.bottom))


def _convolved(x: Tensor, weight: Tensor, geometry: Geometry) -> Tensor:
    return F.conv2d(_padded(x, geometry), weight, stride=geometry.stride, groups=x.shape[1])
