"""Passes over large tensors on a CPU, in which BatchNorm, activation and depthwise convolution are one.

Tensors are float32 and channels-last, channels a multiple of 8. `cpu_passes.cpp` explains what is saved. Vectors of a
value for each channel are (C,).
"""

import ctypes
import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from effnet.kernels.geometry import Geometry
from effnet.runtime.cpp import load_kernels

_SOURCE = Path(__file__).with_suffix(".cpp")
# As the file counts them.
_ACTIVATIONS: dict[type[nn.Module], int] = {nn.Identity: 0, nn.SiLU: 1, nn.ReLU6: 2, nn.Hardswish: 3}
NO_ACTIVATION = 0
_MULTIPLE = 8
_KERNELS, _STRIDES = (3, 5), (1, 2)
# Parts of a batch whose weight gradients are added in order; more where an image gives a thread enough to do.
_PARTS, _LARGE_MAP = 8, 256


def is_available() -> bool:
    """Return whether the passes can be used on this machine; compile them the first time."""
    return load_kernels(_SOURCE) is not None


def activation_number(activation: nn.Module) -> int | None:
    """Return the number of an activation, None for one that the passes do not know."""
    return _ACTIVATIONS.get(type(activation))


def supports(channels: int, kernel: int = 3, stride: int = 1) -> bool:
    """Return whether the passes have a form for a number of channels and a convolution."""
    return channels % _MULTIPLE == 0 and kernel in _KERNELS and stride in _STRIDES


def moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and biased variance of each channel of (N, C, H, W)."""
    mean, variance = _vector(x), _vector(x)
    images, channels, height, width = x.shape
    _library().effnet_moments(*_pointers(x), images, height, width, channels, *_pointers(mean, variance))
    return mean, variance


def filtered(
    x: Tensor, weight: Tensor, scale: Tensor | None, shift: Tensor | None, geometry: Geometry, activation: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Convolve act(x * scale + shift), or x itself where `scale` and `shift` are None.

    Args:
        x: (N, C, H, W).
        weight: (C, 1, k, k).
        scale, shift: of each channel.
        geometry: of the convolution.
        activation: its number; none where there is no scale.

    Returns:
        y: (N, C, ceil(H / stride), ceil(W / stride)).
        mean, variance: of each channel of y, the variance biased.
    """
    y = _empty(x, geometry.out_height, geometry.out_width)
    mean, variance, taps = _vector(x), _vector(x), _taps(weight)
    shape = _Shape.of(x, geometry)
    _library().effnet_filter(
        ctypes.byref(shape), activation, *_pointers(x, taps, scale, shift, y, mean, variance)
    )
    return y, mean, variance


@dataclass(frozen=True)
class Incoming:
    """Steps between the convolution's output y and the gradient that arrives.

    That gradient belongs to act(y * scale + shift) * gate, and each pixel of the activation gets `pooled` besides. The
    gradient of y through BatchNorm's mean and variance is constant + linear * y.

    Attributes:
        y: (N, C, H', W').
        grad: the same.
        scale, shift, constant, linear: of each channel.
        gate, pooled: (N, C); None for one and zero.
        activation: number.
    """

    y: Tensor
    grad: Tensor
    scale: Tensor
    shift: Tensor
    gate: Tensor | None
    pooled: Tensor | None
    constant: Tensor
    linear: Tensor
    activation: int


def filtered_backward(
    x: Tensor,
    weight: Tensor,
    scale: Tensor | None,
    shift: Tensor | None,
    mean: Tensor | None,
    geometry: Geometry,
    incoming: Incoming,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of `filtered`.

    Args:
        x, weight, scale, shift, geometry: as there; with a scale, the activation is that of `incoming`.
        mean: of each channel of x; None for zero.
        incoming: where the gradient comes from.

    Returns:
        grad: (N, C, H, W), of x * scale + shift, or of x where there is no scale.
        grad_weight: (C, 1, k, k).
        sums: (2, C), over all pixels: of grad and of grad * (x - mean).
    """
    grad, images = torch.empty_like(x), x.shape[0]
    parts = images if geometry.height * geometry.width >= _LARGE_MAP else min(images, _PARTS)
    grad_weight = x.new_empty(parts, geometry.kernel**2, x.shape[1])
    sums = x.new_empty(2, images, x.shape[1])
    kept = (
        *(x, _taps(weight), scale, shift, mean),
        *(incoming.y, incoming.grad, incoming.scale, incoming.shift, incoming.gate, incoming.pooled),
        *(incoming.constant, incoming.linear, grad, grad_weight, sums),
    )
    tensors = (ctypes.c_void_p * len(kept))(*_pointers(*kept))
    before = NO_ACTIVATION if scale is None else incoming.activation
    shape = _Shape.of(x, geometry)
    _library().effnet_filter_backward(
        ctypes.byref(shape), before, incoming.activation, parts, ctypes.cast(tensors, ctypes.c_void_p)
    )
    return grad, grad_weight.sum(0).t().reshape(weight.shape), sums.sum(1)


def applied(x: Tensor, scale: Tensor, shift: Tensor, gate: Tensor | None, activation: int) -> Tensor:
    """Return act(x * scale + shift) * gate, for a gate of (N, C) or None."""
    out = torch.empty_like(x)
    images, channels, height, width = x.shape
    _library().effnet_apply(
        activation, *_pointers(x, scale, shift, gate), images, height * width, channels, *_pointers(out)
    )
    return out


def pooled(x: Tensor, scale: Tensor, shift: Tensor, activation: int) -> Tensor:
    """Return the mean of act(x * scale + shift) over each image, (N, C)."""
    images, channels, height, width = x.shape
    out = x.new_empty(images, channels)
    _library().effnet_pool(
        activation, *_pointers(x, scale, shift), images, height, width, channels, *_pointers(out)
    )
    return out


def gradient_sums(
    grad: Tensor, x: Tensor, mean: Tensor, scale: Tensor, shift: Tensor, activation: int
) -> Tensor:
    """Return the sums over each image from which the gradients of `applied` follow.

    With d = `grad`, f = act(x * scale + shift), f' = act'(x * scale + shift) and z = x - mean.

    Returns:
        (5, N, C): the sums of d f, d f', f', d f' z and f' z.
    """
    images, channels, height, width = x.shape
    out = x.new_empty(5, images, channels)
    _library().effnet_gradient_sums(
        activation, *_pointers(grad, x, mean, scale, shift), images, height, width, channels, *_pointers(out)
    )
    return out


def applied_backward(
    grad: Tensor,
    x: Tensor,
    scale: Tensor,
    shift: Tensor,
    constant: Tensor,
    linear: Tensor,
    activation: int,
    out: Tensor | None = None,
) -> Tensor:
    """Return scale * grad * act'(x * scale + shift) + constant + linear * x; in `out`, which may be `grad`."""
    out = torch.empty_like(x) if out is None else out
    images, channels, height, width = x.shape
    pointers = _pointers(grad, x, scale, shift, constant, linear)
    _library().effnet_apply_backward(activation, *pointers, images, height * width, channels, *_pointers(out))
    return out


class _Shape(ctypes.Structure):
    _fields_ = tuple(
        (name, ctypes.c_int)
        for name in (
            *("images", "channels", "height", "width", "out_height", "out_width"),
            *("kernel", "stride", "top", "left"),
        )
    )

    @classmethod
    def of(cls, x: Tensor, geometry: Geometry) -> "_Shape":
        return cls(
            *x.shape,
            *(geometry.out_height, geometry.out_width),
            *(geometry.kernel, geometry.stride, geometry.top, geometry.left),
        )


def _taps(weight: Tensor) -> Tensor:
    """The weights of a depthwise convolution as (k, k, C)."""
    return weight.detach()[:, 0].permute(1, 2, 0).contiguous()


def _vector(x: Tensor) -> Tensor:
    return x.new_empty(x.shape[1])


def _empty(x: Tensor, height: int, width: int) -> Tensor:
    return torch.empty((*x.shape[:2], height, width), dtype=x.dtype, memory_format=torch.channels_last)


def _pointers(*tensors: Tensor | None) -> list[int | None]:
    return [None if tensor is None else tensor.data_ptr() for tensor in tensors]


@functools.cache
def _library() -> Any:
    library = load_kernels(_SOURCE)
    assert library is not None, "see `is_available`"
    pointer, number, long = ctypes.c_void_p, ctypes.c_int, ctypes.c_long
    signatures = {
        "effnet_moments": [pointer, *[number] * 4, *[pointer] * 2],
        "effnet_filter": [pointer, number, *[pointer] * 7],
        "effnet_filter_backward": [pointer, number, number, number, pointer],
        "effnet_apply": [number, *[pointer] * 4, number, long, number, pointer],
        "effnet_pool": [number, *[pointer] * 3, *[number] * 4, pointer],
        "effnet_gradient_sums": [number, *[pointer] * 5, *[number] * 4, pointer],
        "effnet_apply_backward": [number, *[pointer] * 6, number, long, number, pointer],
    }
    for name, arguments in signatures.items():
        function = getattr(library, name)
        function.restype, function.argtypes = None, arguments
    return library
