"""Preparing batches of images: what a loader's process or thread does."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import Dataset, get_worker_info

from effnet.data.dataset_images import DatasetImages
from effnet.data.decode import BadImageError, Pixels, Readable
from effnet.data.labels import SplitLabels
from effnet.data.politeness import politely
from effnet.data.position import Indices
from effnet.data.sizes import Sizes
from effnet.data.watched import reading
from effnet.runtime.errors import UserError

Transform = Callable[[Readable, int, int], Pixels]


class Images(Protocol):
    """Images of a split in a fixed order, with random access; each worker gets a copy."""

    @property
    def targets(self) -> npt.NDArray[Any]:
        """int32 (N,), the position of each image's class in the class list, or uint8 (N, classes) with 1 for each label
        of an image that may have several.
        """

    @property
    def weights(self) -> npt.NDArray[np.float32] | None:
        """float32 (N,), how much each image counts in training; None where all count the same."""

    def __len__(self) -> int:
        """Images of the split."""

    def file(self, index: int) -> str:
        """Return the name of an image for messages: its file, or its shard and position."""

    def read(self, indices: Sequence[int]) -> Iterable[Callable[[], Readable]]:
        """Return for each of `indices` a function that opens it, or raises `BadImageError`."""


class Prepared(NamedTuple):
    """A batch of N images, of which those left out are missing."""

    pixels: torch.Tensor
    """uint8 (N, side, side, 3)"""
    targets: torch.Tensor
    weights: torch.Tensor | None
    indices: torch.Tensor
    """int64 (N,)"""
    bad: list[BadImageError]


Result = Prepared | BadImageError | UserError
"""a failure is a value: raised by a process, it would arrive as a traceback in a string"""


class BatchWork(Dataset[Any]):
    """The batches of a split, by epoch and indices.

    Args:
        images: the split.
        labels: of its images.
        transform: from an image, its epoch and its index to pixels.
        sizes: sides of the images by epoch.
        on_bad_image: ``skip`` to leave out images that can't be decoded; else they fail the batch.
        full: keep a batch's size, by repeating an image in the place of a bad one.
    """

    def __init__(
        self,
        images: Images,
        labels: SplitLabels,
        transform: Transform,
        sizes: Sizes,
        on_bad_image: str,
        full: bool,
    ) -> None:
        self.images, self.labels, self.transform, self.sizes = images, labels, transform, sizes
        self.skip_bad = on_bad_image == "skip"
        self.full = full

    def __getitems__(self, wanted: tuple[int, Indices]) -> Result:
        """Prepare a batch in a worker process, or in the training process."""
        try:
            batch = UnfinishedBatch(self, *wanted)
        except UserError as error:
            return error
        with reading() as note:
            for row in range(len(batch)):
                note(batch.image(row))
                if not politely(partial(batch.prepare, row)):
                    break
        return batch.result()

    def read(self, epoch: int, indices: list[int]) -> Iterable[Callable[[], Readable]]:
        """Return functions that open images."""
        if isinstance(self.images, DatasetImages):  # which may be random themselves
            return self.images.read(indices, epoch if self.full else 0)
        return self.images.read(indices)


class UnfinishedBatch:
    """A batch whose images are being prepared, in any order and by any thread.

    Args:
        work: what is to be done.
        epoch: epoch, from 0.
        indices: places in the epoch's order, which a sampler may have made longer than the split.

    Attributes:
        openers: functions that open the images.

    Raises:
        UserError: the images can't be read.
    """

    def __init__(self, work: BatchWork, epoch: int, indices: Indices) -> None:
        self.work, self.epoch = work, epoch
        # A sampler's repetitions of an image differ in their augmentation alone.
        self._places, self._indices = indices.tolist(), indices % len(work.images)
        side = work.sizes.at(epoch)
        self._pixels = torch.empty((len(indices), side, side, 3), dtype=torch.uint8)
        if get_worker_info() is not None:
            self._pixels.share_memory_()  # written where the training process will read it
        self._rows = self._pixels.numpy()
        self._bad: dict[int, BadImageError] = {}
        self._failures: dict[int, BadImageError | UserError] = {}
        self.openers: list[Callable[[], Readable]] = list(work.read(epoch, self._indices.tolist()))

    def __len__(self) -> int:
        return len(self._places)

    def image(self, row: int) -> int:
        """Return the index of an image in its split."""
        return int(self._indices[row])

    def prepare(self, row: int) -> bool:
        """Prepare one image, and return False if the batch fails for it."""
        try:
            self._rows[row] = self.work.transform(self.openers[row](), self.epoch, self._places[row])
        except BadImageError as error:
            if not self.work.skip_bad:
                self._failures[row] = error
                return False
            self._bad[row] = error
        except UserError as error:
            self._failures[row] = error
            return False
        return True

    def result(self) -> Result:
        """Return the batch, after all its images are prepared or it has failed."""
        if self._failures:
            return self._failures[min(self._failures)]
        pixels, indices = self._pixels, self._indices
        bad = [self._bad[row] for row in sorted(self._bad)]
        if bad:
            good = [row for row in range(len(self)) if row not in self._bad]
            if self.work.full and not good:
                return BadImageError(bad[0].name, f"{bad[0].reason}; nor can any other image of its batch")
            kept = filled(len(self), good) if self.work.full else np.array(good, dtype=np.int64)
            pixels, indices = pixels[torch.from_numpy(kept)], indices[kept]
        targets, weights = self.work.labels.batch(indices)
        return Prepared(pixels, targets, weights, torch.from_numpy(indices.copy()), bad)


def filled(size: int, good: list[int]) -> Indices:
    """The rows of a batch, where in the place of each bad one stands a good one, all of them in turn."""
    rows = np.arange(size)
    bad = np.setdiff1d(rows, good)
    rows[bad] = np.resize(good, len(bad))
    return rows
