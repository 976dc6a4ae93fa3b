"""Block that runs the kernels for the depthwise convolution and the BatchNorms and activations around it.

In the library's form, each of BatchNorm's statistics, its application, SiLU and the convolution reads the expanded
tensor and most write one. Here BatchNorm is a scale and a shift of each channel, made from a mean and a variance by
operations on small tensors, through which autograd finds BatchNorm's gradient; so the expanded tensor goes from the
expansion to the convolution as it is, and what the convolution gives has its statistics already. In evaluation, scale
and shift come from the running statistics.
"""

import torch
from torch import Tensor, nn

from effnet.kernels.geometry import top_left
from effnet.kernels.operators import NONE, depthwise, moments
from effnet.kernels.statistics import channel_elements, has_statistics, learn_statistics
from effnet.models.layers import Conv2d, MBConv

# Names of the kernels' activations by the layer that they stand for.
ACTIVATIONS: dict[type[nn.Module], str] = {nn.SiLU: "silu", nn.ReLU6: "relu6"}


class KernelMBConv(MBConv):
    """Block whose part around the depthwise convolution runs the kernels of this package."""

    train_tile: int | None = None
    """index into `effnet.kernels.tiles.TILES` for training; None for PyTorch's operators"""
    eval_tile: int | None = None
    """the same for evaluation"""

    def filtered(self, y: Tensor) -> Tensor:
        """See `MBConv.filtered`."""
        tile = self.train_tile if self.training else self.eval_tile
        # An exported model is to hold plain convolutions.
        if tile is None or torch.compiler.is_exporting():
            return super().filtered(y)
        conv, expand = self.depsep.conv, self.expand
        return filtered(
            y,
            None if expand is None else expand.bn,
            self.depsep.act,
            conv.weight,
            self.depsep.bn,
            stride=conv.stride[0],
            top_left=top_left(conv, *y.shape[2:]),
            tile=tile,
        )


def can_fuse(block: MBConv) -> bool:
    """Return whether the kernels have a form for a block: none of the layers that they stand for was replaced."""
    norms = [block.depsep.bn, *([block.expand.bn] if block.expand is not None else [])]
    return type(block.depsep.conv) is Conv2d and supports(block.depsep.act, *norms)


def supports(activation: nn.Module, *norms: nn.Module) -> bool:
    """Return whether the kernels know an activation and normalisations, which may have been replaced."""
    return type(activation) in ACTIVATIONS and all(has_statistics(norm) for norm in norms)


def filtered(
    x: Tensor,
    before: nn.BatchNorm2d | None,
    activation: nn.Module,
    weight: Tensor,
    after: nn.BatchNorm2d,
    *,
    stride: int,
    top_left: tuple[int, int],
    tile: int,
) -> Tensor:
    """Apply a depthwise convolution with BatchNorm and activation after it and, unless `before` is None, before it.

    Args:
        x: (N, C, H, W); under autocast it is taken to autocast's type.
        before, after: BatchNorms, whose running statistics learn from the batch if they are in training.
        activation: after either.
        weight: (C, 1, k, k).
        stride: of the convolution.
        top_left: zeros above and before the image.
        tile: index into `effnet.kernels.tiles.TILES`.

    Returns:
        (N, C, ceil(H / stride), ceil(W / stride)), in x's type or autocast's.
    """
    if torch.is_autocast_enabled(x.device.type):
        x = x.to(torch.get_autocast_dtype(x.device.type))
    name = ACTIVATIONS[type(activation)]
    scale = shift = None
    if before is not None:
        statistics = moments(x) if before.training else None
        scale, shift = _normalisation(before, statistics, channel_elements(x))
    y, mean, variance = depthwise(
        x,
        weight.to(x.dtype),
        scale,
        shift,
        weight.shape[-1],
        stride,
        *top_left,
        NONE if before is None else name,
        tile,
    )
    scale, shift = _normalisation(after, (mean, variance) if after.training else None, channel_elements(y))
    return activation(y * scale[:, None, None] + shift[:, None, None]).to(y.dtype)


def _normalisation(
    norm: nn.BatchNorm2d, statistics: tuple[Tensor, Tensor] | None, count: int
) -> tuple[Tensor, Tensor]:
    """Return scale and shift of each channel, (C,), that apply `norm`.

    Args:
        norm: it learns the batch's statistics.
        statistics: mean and biased variance of the batch; None takes those that `norm` has learnt.
        count: elements of each channel in the batch.
    """
    if statistics is None:
        assert norm.running_mean is not None
        assert norm.running_var is not None
        return _affine(norm, norm.running_mean, norm.running_var)
    mean, variance = statistics
    learn_statistics(norm, mean, variance, count)
    return _affine(norm, mean, variance)


def _affine(norm: nn.BatchNorm2d, mean: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
    scale = norm.weight * torch.rsqrt(variance + norm.eps)
    return scale, norm.bias - mean * scale
