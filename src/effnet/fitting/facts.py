"""Facts of a data set and of a machine that decide with which settings to train."""

import hashlib
import io
import os
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from effnet.data.decode import BadImageError
from effnet.data.limits import LimitError
from effnet.data.sources import SourceImages, open_splits
from effnet.recipe import Recipe
from effnet.runtime.progress import ProgressBar

_MOST_SIZES = 200  # images whose size is looked at
_MOST_DIGESTS = 20_000  # images in which equal ones are searched


@dataclass(frozen=True)
class DataFacts:
    """Facts of a data set.

    Attributes:
        train_images: images to train on.
        val_images: images to validate on.
        counts: training images of each class by its name.
        several_labels: an image may have none or several labels.
        side: median of the shorter sides in pixels; 0 if no image could be opened.
        duplicates: training images that are copies of another one, None if not searched for.
        leaks: validation images that are copies of a training image, None if not searched for.
    """

    train_images: int
    val_images: int
    counts: Mapping[str, int]
    several_labels: bool = False
    side: int = 224
    duplicates: int | None = 0
    leaks: int | None = 0

    @property
    def imbalance(self) -> float:
        """Images of the most frequent class for one of the rarest that has any."""
        present = [count for count in self.counts.values() if count] or [1]
        return max(present) / min(present)


@dataclass(frozen=True)
class MachineFacts:
    """Facts of a machine.

    Attributes:
        gpu: name of its first GPU; empty without one.
        gpu_memory: of that GPU, in GiB.
        cores: cores that this process may use.
    """

    gpu: str = ""
    gpu_memory: float = 0.0
    cores: int = 1


def data_facts(recipe: Recipe, path: Path) -> DataFacts:
    """Look at a data set: all labels, some sizes, and the content of up to 20,000 images.

    Raises:
        UserError: what can't be found or read; see `effnet.data.sources.open_splits`.
    """
    splits = open_splits(recipe, path)
    train, val = splits.images["train"], splits.images["val"]
    targets = np.asarray(train.targets)
    counts = targets.sum(0) if targets.ndim == 2 else np.bincount(targets, minlength=len(splits.classes))
    duplicates, leaks = _copies(train, val)
    return DataFacts(
        len(train),
        len(val),
        dict(zip(splits.classes, counts.tolist(), strict=True)),
        splits.several_labels,
        _median_side(train),
        duplicates,
        leaks,
    )


def machine_facts() -> MachineFacts:
    """Look at this machine."""
    cores = len(os.sched_getaffinity(0))
    if not torch.cuda.is_available():
        return MachineFacts(cores=cores)
    properties = torch.cuda.get_device_properties(0)
    return MachineFacts(properties.name, properties.total_memory / 2**30, cores)


def _content(images: SourceImages, index: int) -> bytes | None:
    """Return a file's content; None if it can't be read, which training finds and names."""
    try:
        return images.content(index)
    except (OSError, BadImageError, LimitError):
        return None


def _median_side(images: SourceImages) -> int:
    sides = []
    for index in np.linspace(0, len(images) - 1, min(len(images), _MOST_SIZES)).astype(int).tolist():
        try:
            with Image.open(io.BytesIO(_content(images, index) or b"")) as image:
                sides.append(min(image.size))
        except (OSError, ValueError, Image.DecompressionBombError):
            continue
    return int(np.median(sides)) if sides else 0


def _copies(train: SourceImages, val: SourceImages) -> tuple[int | None, int | None]:
    """Return the training images that repeat another one, and the validation images that repeat a training image."""
    if len(train) + len(val) > _MOST_DIGESTS:
        return None, None
    digests: dict[str, set[bytes]] = defaultdict(set)
    leaks = 0
    with ProgressBar("looking for copies", len(train) + len(val)) as progress:
        for index in range(len(train)):
            digests["train"].add(_digest(train, index))
            progress.advance(1)
        for index in range(len(val)):
            leaks += _digest(val, index) in digests["train"]
            progress.advance(1)
    return len(train) - len(digests["train"]), leaks


def _digest(images: SourceImages, index: int) -> bytes:
    content = _content(images, index)
    return hashlib.sha256(images.name(index).encode() if content is None else content).digest()
