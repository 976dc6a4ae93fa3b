"""Mixup: training on mixtures of two images and of their targets (arXiv 1710.09412)."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from effnet.data.randomness import Stream, generator


class Mix(NamedTuple):
    """Mixture of one batch of N images.

    Attributes:
        weight: share of each image itself, a float32 scalar in [0, 1]; the rest is its partner's.
        partners: index of each image's partner in the batch, int64 (N,), a permutation.
    """

    weight: Tensor
    partners: Tensor


def mixup(images: Tensor, targets: Tensor, mix: Mix, num_classes: int) -> tuple[Tensor, Tensor]:
    """Mix each image with its partner.

    Made for use inside a compiled step: no data-dependent control flow, nothing waits for the device.

    Args:
        images: float (N, C, H, W).
        targets: int64 (N,), 0 <= target < num_classes.
        mix: weight and partners, on the images' device. The weight is a tensor lest each value compile again.
        num_classes: classes of the model.

    Returns:
        The mixed images, of the images' dtype and strides, and float32 targets (N, num_classes) whose rows
        sum to 1.
    """
    hard = (targets[:, None] == torch.arange(num_classes, device=targets.device)).float()
    mixed = torch.lerp(images[mix.partners], images, mix.weight.to(images.dtype))
    return mixed, torch.lerp(hard[mix.partners], hard, mix.weight)


def epoch_mixes(
    alpha: float, seed: int, epoch: int, *, rank: int, steps: int, batch_size: int, device: torch.device
) -> list[Mix]:
    """Mixtures of an epoch's batches in one process.

    Weights are from Beta(alpha, alpha), permutations uniform. Both depend on (seed, epoch, step, rank) alone, so a
    resumed run draws what an uninterrupted one would. They go to the device in one copy each: one in every step
    could wait for it.

    Args:
        alpha: parameter of the distribution; 0 mixes nothing.
        seed: seed of the run.
        epoch: epoch, from 0.
        rank: number of this process, each of which draws its own.
        steps: batches of the epoch.
        batch_size: images in a batch.
        device: where the batches are.
    """
    weights = np.ones(steps, dtype=np.float32)
    partners = np.tile(np.arange(batch_size), (steps, 1))
    if alpha:
        for step in range(steps):
            draw = generator(Stream.MIXUP, seed, epoch, step, rank)
            weights[step], partners[step] = draw.beta(alpha, alpha), draw.permutation(batch_size)
    on_device = torch.from_numpy(weights).to(device), torch.from_numpy(partners).to(device)
    return [Mix(*row) for row in zip(*(rows.unbind() for rows in on_device), strict=True)]
