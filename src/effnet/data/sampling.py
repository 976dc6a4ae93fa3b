"""Samplers of training images, one row each: the share of an epoch that each image has.

A new one is a row of `SAMPLERS` and its name in `effnet.recipe.choices.SamplerName`.

A sampler draws positions of images, some of them more than once. So that the repetitions of an image within an epoch
are augmented each in its own way, the k-th one stands in the order as position + k * images: see `repeated`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from effnet.data.labels import SplitLabels
from effnet.recipe.choices import SamplerName
from effnet.runtime.errors import UserError
from effnet.runtime.registry import registry

Positions = npt.NDArray[np.int64]
Draw = Callable[[SplitLabels, int, np.random.Generator], Positions]


@dataclass(frozen=True)
class SamplerRow:
    """A sampler.

    Attributes:
        name: value of ``--sampler``.
        summary: what it does, for the documentation's table.
        draw: returns as many positions as are asked for in any order: (labels, number, generator). None for every
            image once.
    """

    name: str
    summary: str
    draw: Draw | None


def _balanced(labels: SplitLabels, number: int, random: np.random.Generator) -> Positions:
    groups = _groups(labels)
    shares = np.full(len(groups), number // len(groups))
    shares[random.permutation(len(groups))[: number % len(groups)]] += 1
    return np.concatenate(
        [_cycled(group, share, random) for group, share in zip(groups, shares, strict=True)]
    )


def _groups(labels: SplitLabels) -> list[Positions]:
    """Return the images of each class that has any; of several labels also those without a label."""
    targets = labels.targets
    if labels.are_several:
        groups = [np.flatnonzero(column) for column in targets.T]
        groups.append(np.flatnonzero(~targets.any(1)))
    else:
        order = np.argsort(targets, kind="stable")
        groups = np.split(order, np.flatnonzero(np.diff(targets[order])) + 1)
    return [group for group in groups if len(group)]


def _cycled(group: Positions, number: int, random: np.random.Generator) -> Positions:
    """Return images of a group, all of them equally often but for a remainder that is drawn."""
    whole, rest = divmod(number, len(group))
    return np.concatenate([np.tile(group, whole), random.permutation(group)[:rest]])


def _weighted(labels: SplitLabels, number: int, random: np.random.Generator) -> Positions:
    if labels.weights is None:
        raise UserError("--sampler weighted: the images have no weights; give a table with --weight-column")
    weights = labels.weights.astype(np.float64)
    if not (np.isfinite(weights).all() and (weights >= 0).all() and weights.any()):
        raise UserError("--sampler weighted: the weights must be finite, 0 or more, and not all 0")
    # In equal steps through the sum of the weights from a random start: each image as often as its share says, up to 1.
    ends = np.cumsum(weights)
    steps = (np.arange(number) + random.random()) * (ends[-1] / number)
    last = int(np.flatnonzero(weights)[-1])  # a step may round up to the sum
    return np.minimum(np.searchsorted(ends, steps, side="right"), last)


SAMPLERS = registry(
    SamplerName,
    SamplerRow("none", "Every image once", None),
    SamplerRow(
        "balanced",
        "Every class equally often, and its images in turn; of images with several labels, those without any count as "
        "a class",
        _balanced,
    ),
    SamplerRow("weighted", "Every image as often as its weight says (`--weight-column`)", _weighted),
)


def repeated(positions: Positions, images: int) -> Positions:
    """Return positions in which the k-th repetition of one, from 0, is larger by k * images."""
    order = np.argsort(positions, kind="stable")
    in_order = positions[order]
    first = np.searchsorted(in_order, in_order, side="left")
    result: Any = np.empty_like(positions)
    result[order] = in_order + (np.arange(len(positions)) - first) * images
    return np.asarray(result, dtype=np.int64)
