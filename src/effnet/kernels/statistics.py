"""Running statistics of BatchNorm."""

import torch
from torch import Tensor, nn


def channel_elements(x: Tensor) -> int:
    """Return the number of elements of each channel of (N, C, H, W)."""
    return x.numel() // x.shape[1]


def learn_statistics(norm: nn.BatchNorm2d, mean: Tensor, variance: Tensor, count: int) -> None:
    """Let a BatchNorm learn a batch's statistics, as PyTorch's own does.

    Args:
        norm: it tracks statistics with a momentum.
        mean, variance: of each channel, (C,), the variance biased.
        count: elements of each channel in the batch.

    Raises:
        ValueError: a single element, which has no variance.
    """
    if count == 1:
        raise ValueError("Expected more than 1 value per channel when training, as BatchNorm says")
    running_mean, running_var, batches, momentum = (
        norm.running_mean, norm.running_var, norm.num_batches_tracked, norm.momentum,
    )  # fmt: skip
    assert running_mean is not None
    assert running_var is not None
    assert batches is not None
    assert momentum is not None
    with torch.no_grad():
        batches.add_(1)
        running_mean.lerp_(mean.detach().to(running_mean.dtype), momentum)
        unbiased = variance.detach() * count / (count - 1)
        running_var.lerp_(unbiased.to(running_var.dtype), momentum)


def has_statistics(norm: nn.Module) -> bool:
    """Return whether a module is PyTorch's own BatchNorm with weights, statistics and a momentum."""
    return (
        type(norm) is nn.BatchNorm2d
        and norm.affine
        and norm.track_running_stats
        and norm.momentum is not None
    )
