"""Mixup: training on mixtures of two images and of their targets (arXiv 1710.09412)."""

import torch
from torch import Tensor

from effnet.data.randomness import Stream, generator


def mixup(images: Tensor, targets: Tensor, lam: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
    """Mix image i with image N - 1 - i; shuffled batches make that a random pair.

    Made for use inside a compiled step: no data-dependent control flow, nothing waits for the device.

    Args:
        images: float (N, C, H, W).
        targets: int64 (N,), 0 <= target < num_classes.
        lam: 0-dimensional float, 0..1: share of image i. It is a tensor lest each value compile anew.

    Returns:
        the mixed images, of the images' dtype and strides, and float32 targets (N, num_classes) whose rows
        sum to 1.
    """
    hard = (targets[:, None] == torch.arange(num_classes, device=targets.device)).float()
    lam = lam.to(images.device, torch.float32)
    mixed = torch.lerp(images.flip(0), images, lam.to(images.dtype))
    return mixed, torch.lerp(hard.flip(0), hard, lam)


def mixup_weight(alpha: float, seed: int, epoch: int, step: int) -> float:
    """Share of the first image in a step's mixtures, from Beta(alpha, alpha); 1 where alpha is 0.

    It depends on the arguments alone, so a resumed run draws what an uninterrupted one would. All processes
    of a run draw the same; add the rank to the seed if they must differ.
    """
    return generator(Stream.MIXUP, seed, epoch, step).beta(alpha, alpha) if alpha else 1.0
