"""An index of image files, compact enough for millions of them."""

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from effnet.data.decode import EncodedImage
from effnet.data.limits import MAX_PIXELS, read_image

Targets = npt.NDArray[Any]
"""int32 (N,): position of each image's class; uint8 (N, C): 1 for each label that an image has, else 0"""


@dataclass(frozen=True)
class ImageFiles:
    """Image files in a fixed order, with their targets.

    File names lie end to end in one buffer: a million images cost some tens of megabytes in three arrays,
    which forked workers share without copying, and no Python object each.
    """

    root: Path
    """folder that the names start from"""
    classes: list[str]
    """class names in the order of the targets"""
    targets: Targets
    """int32 (N,) position of each image's class in `classes`; uint8 (N, C) for images with several labels"""
    _names: npt.NDArray[np.uint8]
    _ends: npt.NDArray[np.int64]
    max_pixels: int = MAX_PIXELS
    """pixels that an image may have"""
    weights: npt.NDArray[np.float32] | None = None
    """(N,) weight of each image in the loss; None for equal ones"""

    def __len__(self) -> int:
        return len(self.targets)

    def path(self, index: int) -> Path:
        """Path of image `index`."""
        return Path(self.file(index))

    def file(self, index: int) -> str:
        """The same as a string, which costs a quarter."""
        name = self.name(index)
        return name if name.startswith("/") else f"{self.root}/{name}"

    def name(self, index: int) -> str:
        """Path of image `index` from `root`, or an absolute one."""
        return os.fsdecode(self.encoded_name(index))

    def encoded_name(self, index: int) -> bytes:
        """The same as the file system has it."""
        first = self._ends[index - 1] if index else 0
        return self._names[first : self._ends[index]].tobytes()

    def key(self, index: int) -> bytes:
        """Return eight bytes that change with the file's name, size or time of its last change.

        Raises:
            OSError: there is no such file.
        """
        file = self.file(index)
        found = os.stat(file)
        name = file.removeprefix(str(self.root))
        text = f"{name}\0{found.st_size}\0{found.st_mtime_ns}"
        return hashlib.blake2b(os.fsencode(text), digest_size=8).digest()

    def fingerprint(self) -> str:
        """SHA-256 of the class list and of every image's class and name."""
        digest = hashlib.sha256(json.dumps(self.classes).encode())
        for part in (self.targets, self._names, self._ends):
            digest.update(part.data)
        return digest.hexdigest()

    def subset(self, indices: npt.NDArray[np.int64]) -> Self:
        """Return the images at `indices` (M,), in that order."""
        starts = np.concatenate([[0], self._ends[:-1]])[indices] if len(indices) else np.empty(0, np.int64)
        lengths = self._ends[indices] - starts
        ends = np.cumsum(lengths, dtype=np.int64)
        # position of each byte: the start of its name, and its place in it
        places = np.repeat(starts - (ends - lengths), lengths) + np.arange(lengths.sum())
        return replace(
            self,
            targets=np.ascontiguousarray(self.targets[indices]),
            weights=None if self.weights is None else self.weights[indices],
            _names=self._names[places],
            _ends=ends,
        )

    def read(self, indices: Sequence[int]) -> Iterator[Callable[[], EncodedImage]]:
        """See `effnet.data.loader.Images`."""
        return (partial(self.image, index) for index in indices)

    def content(self, index: int) -> bytes:
        """Return the content of a file.

        Raises:
            OSError: it can't be read.
            LimitError: it is too large for an image.
        """
        return read_image(self.path(index), self.max_pixels)

    def image(self, index: int) -> EncodedImage:
        """Open image `index`.

        Raises:
            BadImageError: the file can't be read, is no image, or is beyond a limit.
        """
        return EncodedImage(self.path(index), max_pixels=self.max_pixels)


def image_list(
    root: Path, classes: list[str], targets: Targets, names: Sequence[bytes], **options: Any
) -> ImageFiles:
    """Return the index of `names` (N,), paths from `root` or absolute ones; `options` are further fields."""
    ends = np.cumsum([len(name) for name in names], dtype=np.int64)
    return ImageFiles(root, classes, targets, np.frombuffer(b"".join(names), np.uint8), ends, **options)
