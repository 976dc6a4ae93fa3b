"""Automatic augmentation by DALI's operations, as NumPy's generator draws it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from effnet.data.dali.library import augmentations, auto_augment, rand_augment, signed_bin, trivial_augment
from effnet.data.feed import Array

_FILL = 128  # mid-grey where an operation has moved the image away, as in `effnet.data.transforms`


@dataclass(frozen=True)
class Augmentation:
    """An automatic augmentation by DALI's operations."""

    stages: list[list[Any]]
    """operations among which each stage has its choice"""
    num_bins: int
    """steps on the scale of magnitudes"""
    draw: Callable[[np.random.Generator], Array]
    """int32 (stages, 3) for an image: in each stage, the operation, its magnitude, and 1 if that is negated"""


def _auto_augment(side: int) -> Augmentation:
    policy = auto_augment.get_reduced_image_net_policy()
    rows = policy.sub_policies
    stages: list[dict[str, Any]] = [{"": augmentations.identity} for _ in range(max(map(len, rows)))]
    for row in rows:
        for stage, (operation, _, _) in zip(stages, row, strict=False):
            stage[operation.name] = operation
    numbers = [{name: number for number, name in enumerate(stage)} for stage in stages]

    def draw(random: np.random.Generator) -> Array:
        drawn = np.zeros((len(stages), 3), np.int32)
        for stage, (operation, probability, magnitude) in enumerate(rows[random.integers(len(rows))]):
            if random.random() < probability:
                drawn[stage] = numbers[stage][operation.name], magnitude or 0, random.integers(2)
        return drawn

    return Augmentation([list(stage.values()) for stage in stages], policy.num_magnitude_bins, draw)


def _rand_augment(side: int, stages: int = 2, magnitude: int = 9, num_bins: int = 31) -> Augmentation:
    operations = rand_augment.get_rand_augment_suite(max_translate_abs=round(side * 100 / 224))

    def draw(random: np.random.Generator) -> Array:
        drawn = random.integers([len(operations), 1, 2], size=(stages, 3), dtype=np.int32)
        return drawn + np.array([0, magnitude, 0], np.int32)

    return Augmentation([operations] * stages, num_bins, draw)


def _trivial_augment(side: int, num_bins: int = 31) -> Augmentation:
    operations = trivial_augment.get_trivial_augment_wide_suite()

    def draw(random: np.random.Generator) -> Array:
        return random.integers([len(operations), num_bins, 2], size=(1, 3), dtype=np.int32)

    return Augmentation([operations], num_bins, draw)


AUGMENTATIONS: dict[str, Callable[[int], Augmentation | None]] = {
    "none": lambda side: None,
    "autoaugment": _auto_augment,
    "randaugment": _rand_augment,
    "trivialaugment": _trivial_augment,
}


def augmented(augmentation: Augmentation, images: Any, drawn: Any) -> Any:
    """Images after what was drawn for them."""
    for stage, operations in enumerate(augmentation.stages):
        magnitude = signed_bin(drawn[stage, 1], random_sign=drawn[stage, 2])
        images = _applied(operations, images, drawn[stage, 0], magnitude, augmentation.num_bins)
    return images


def _applied(
    operations: list[Any], images: Any, chosen: Any, magnitude: Any, num_bins: int, first: int = 0
) -> Any:
    """The chosen one of `operations`, which are numbered from `first`: a batch is split until one remains."""
    if len(operations) == 1:
        return operations[0](images, magnitude_bin=magnitude, num_magnitude_bins=num_bins, fill_value=_FILL)
    half = len(operations) // 2
    if chosen < first + half:
        images = _applied(operations[:half], images, chosen, magnitude, num_bins, first)
    else:
        images = _applied(operations[half:], images, chosen, magnitude, num_bins, first + half)
    return images
