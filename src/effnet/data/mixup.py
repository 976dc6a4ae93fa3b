"""Mixup and CutMix: training on mixtures of two images and of their targets (arXiv 1710.09412, 1905.04899)."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from effnet.data.randomness import Stream, generator

_CUTMIX_SHARE = 0.5
"""share of the batches that CutMix takes where mixup is on as well"""


class Mix(NamedTuple):
    """Mixture of one batch of N images.

    Attributes:
        weight: share of each image itself in its pixels, a float32 scalar in [0, 1]; the rest is its partner's.
        partners: index of each image's partner in the batch, int64 (N,), a permutation.
        box: top, left, bottom and right of the part that the partner fills alone, as shares of the side, float32 (4,);
            empty where CutMix is not the batch's, None in a run without CutMix.
    """

    weight: Tensor
    partners: Tensor
    box: Tensor | None = None


def multi_hot(targets: Tensor, num_classes: int) -> Tensor:
    """Return targets as float32 (N, num_classes) with 1 for each label; class indices int64 (N,) are one label each."""
    if targets.ndim == 2:
        return targets
    return (targets[:, None] == torch.arange(num_classes, device=targets.device)).float()


def mixup(images: Tensor, targets: Tensor, mix: Mix, num_classes: int) -> tuple[Tensor, Tensor]:
    """Mix each image with its partner.

    Made for use inside a compiled step: no data-dependent control flow, nothing waits for the device.

    Args:
        images: float (N, C, H, W).
        targets: int64 (N,), 0 <= target < num_classes, or float32 (N, any): labels, or whatever else is to be mixed.
        mix: weight, partners and box, on the images' device. They are tensors lest each value compile again.
        num_classes: classes of the model.

    Returns:
        The mixed images, of the images' dtype and strides, and float32 targets (N, num_classes). A target is mixed by
        the shares that the two images have of the pixels.
    """
    hard = multi_hot(targets, num_classes)
    weight = mix.weight if mix.box is None else _weights(mix.weight, mix.box, images)
    mixed = torch.lerp(images[mix.partners], images, weight.to(images.dtype))
    return mixed, torch.lerp(hard[mix.partners], hard, weight.mean())


def _weights(weight: Tensor, box: Tensor, images: Tensor) -> Tensor:
    """Return the share of each image itself by pixel, float32 (H, W)."""
    height, width = images.shape[2:]
    top, left, bottom, right = (box * torch.tensor([height, width, height, width], device=box.device)).round()
    rows = torch.arange(height, device=box.device)[:, None]
    columns = torch.arange(width, device=box.device)
    inside = (rows >= top) & (rows < bottom) & (columns >= left) & (columns < right)
    return torch.where(inside, 0.0, weight)


def epoch_mixes(
    alpha: float,
    seed: int,
    epoch: int,
    *,
    rank: int,
    steps: int,
    batch_size: int,
    device: torch.device,
    cutmix: float = 0.0,
) -> list[Mix]:
    """Mixtures of an epoch's batches in one process.

    Weights are from Beta(alpha, alpha), permutations uniform. All depend on (seed, epoch, step, rank) alone, so a
    resumed run draws what an uninterrupted one would. They go to the device in one copy each: one in every step
    could wait for it.

    Args:
        alpha: parameter of mixup's distribution; 0 for no mixup.
        seed: seed of the run.
        epoch: epoch, from 0.
        rank: number of this process, each of which draws its own.
        steps: batches of the epoch.
        batch_size: images in a batch.
        device: where the batches are.
        cutmix: parameter of CutMix's distribution; 0 for no CutMix. With both, each batch takes either.
    """
    weights = np.ones(steps, dtype=np.float32)
    partners = np.tile(np.arange(batch_size), (steps, 1))
    boxes = np.zeros((steps, 4), dtype=np.float32)
    for step in range(steps if alpha or cutmix else 0):
        draw = generator(Stream.MIXUP, seed, epoch, step, rank)
        if cutmix and (not alpha or draw.random() < _CUTMIX_SHARE):
            boxes[step] = _box(draw, draw.beta(cutmix, cutmix))
        else:
            weights[step] = draw.beta(alpha, alpha)
        partners[step] = draw.permutation(batch_size)
    drawn = [weights, partners, *([boxes] if cutmix else [])]
    on_device = [torch.from_numpy(rows).to(device).unbind() for rows in drawn]
    return [Mix(*row) for row in zip(*on_device, strict=True)]


def _box(draw: np.random.Generator, kept: float) -> npt.NDArray[np.float64]:
    """Return a box around a uniform point whose area, before it is cut at the image's edges, is 1 - `kept`."""
    centre, half = draw.random(2), np.sqrt(1 - kept) / 2
    return np.concatenate([centre - half, centre + half]).clip(0, 1)
