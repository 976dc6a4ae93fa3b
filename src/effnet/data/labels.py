"""The labels of a split's images, as arrays."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor


class Labelled(Protocol):
    """Images that know their labels; they may have weights too, see `labels_of`."""

    @property
    def targets(self) -> npt.NDArray[Any]:
        """(N,) position of each image's class, or uint8 (N, classes) with 1 for each label that an image has."""


@dataclass(frozen=True)
class SplitLabels:
    """SplitLabels and weights of the images of a split.

    Attributes:
        targets: int32 (N,), positions in the class list, or uint8 (N, classes) with 1 for each label of an image.
        weights: float32 (N,), how much each image counts in training; None where all count the same.
    """

    targets: npt.NDArray[Any]
    weights: npt.NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def are_several(self) -> bool:
        """True if an image may have several labels."""
        return self.targets.ndim == 2

    def batch(self, indices: npt.NDArray[np.int64]) -> tuple[Tensor, Tensor | None]:
        """Return the targets and the weights of some images in the form of `effnet.data.Batch`, on the CPU."""
        targets = torch.from_numpy(self.targets[indices].astype("float32" if self.are_several else "int64"))
        return targets, None if self.weights is None else torch.from_numpy(self.weights[indices])

    def counts(self, num_classes: int) -> npt.NDArray[np.int64]:
        """Return the images with each label, (num_classes,)."""
        if self.are_several:
            return self.targets.sum(0, dtype=np.int64)
        return np.bincount(self.targets, minlength=num_classes)


def labels_of(images: Mapping[str, Labelled]) -> dict[str, SplitLabels]:
    """Return the labels by split; the attribute `weights` of images, float32 (N,) or None, need not exist."""
    return {
        split: SplitLabels(of_split.targets, getattr(of_split, "weights", None))
        for split, of_split in images.items()
    }
