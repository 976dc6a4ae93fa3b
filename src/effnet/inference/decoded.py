"""Batches of a source's images as models take them: workers decode, this process goes on with the pixels."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch.utils.data import Dataset, Sampler, get_worker_info

from effnet.data.decode import BadImageError, tell_decoder
from effnet.data.preprocessing import Preprocessing
from effnet.data.sources import SourceImages
from effnet.data.transforms import ValTransform
from effnet.data.watched import WatchedLoader, reading
from effnet.runtime.errors import UserError


class Decoded(NamedTuple):
    """A batch of images.

    Attributes:
        pixels: uint8 (N, image_size, image_size, 3) by preprocessing, of those that can be decoded.
        indices: their positions in the source.
        paths: their names.
        bad: names of the others, and why.
    """

    pixels: tuple[torch.Tensor, ...]
    indices: list[int]
    paths: list[str]
    bad: list[tuple[str, str]]

    @property
    def images(self) -> int:
        """Images, those that can't be decoded included."""
        return len(self.indices) + len(self.bad)


def decoded_batches(
    images: SourceImages,
    preprocessings: Sequence[Preprocessing],
    ranges: Sequence[range],
    *,
    batch_size: int,
    workers: int,
) -> Iterator[Decoded]:
    """Yield the batches of ranges of images, in order; no batch has images of two ranges.

    Args:
        images: the source.
        preprocessings: each image is decoded once and prepared by each of them.
        ranges: positions in the source.
        batch_size: images in a batch.
        workers: processes that decode; 0 to do it in this one.

    Raises:
        UserError: a worker was killed or is stuck, or the source can't be read.
    """
    tell_decoder()
    loader = WatchedLoader(
        _Batches(images, preprocessings),
        workers=workers,
        name_of=images.file,
        batch_size=None,
        sampler=_Ranges(ranges, batch_size),
        prefetch_factor=4 if workers else None,
    )
    for batch in loader:
        if isinstance(batch, UserError):
            raise batch
        yield batch


class _Batches(Dataset[Any]):
    """Batches by their range of images. A failure is a value: raised, it would come with a worker's traceback."""

    def __init__(self, images: SourceImages, preprocessings: Sequence[Preprocessing]) -> None:
        self.images = images
        self.transforms = [ValTransform(each) for each in preprocessings]

    def __getitem__(self, batch: range) -> Decoded | UserError:
        try:
            with reading() as note:
                return self._decoded(batch, note)
        except UserError as error:
            return error

    def _decoded(self, batch: range, note: Any) -> Decoded:
        room = [self._room(len(batch), each.preprocessing.image_size) for each in self.transforms]
        rows = [each.numpy() for each in room]
        indices: list[int] = []
        bad: list[tuple[str, str]] = []
        for index, open_image in zip(batch, self.images.read(list(batch)), strict=True):
            note(index)
            try:
                image = open_image()
                for row, transform in zip(rows, self.transforms, strict=True):
                    row[len(indices)] = transform(image)
            except BadImageError as error:
                bad.append((name_of(self.images, index), error.reason))
            else:
                indices.append(index)
        paths = [name_of(self.images, index) for index in indices]
        return Decoded(tuple(each[: len(indices)] for each in room), indices, paths, bad)

    @staticmethod
    def _room(count: int, side: int) -> torch.Tensor:
        room = torch.empty((count, side, side, 3), dtype=torch.uint8)
        if get_worker_info() is not None:
            room.share_memory_()  # written where the other process will read it
        return room


def name_of(images: SourceImages, index: int) -> str:
    """Return an image's name in the source, with bytes that are not UTF-8 as escape sequences."""
    return images.name(index).encode("utf-8", "backslashreplace").decode()


class _Ranges(Sampler[Any]):
    """The batches of some ranges, in order."""

    def __init__(self, ranges: Sequence[range], batch_size: int) -> None:
        self.ranges, self.batch_size = ranges, batch_size

    def __iter__(self) -> Iterator[range]:
        for each in self.ranges:
            for first in range(each.start, each.stop, self.batch_size):
                yield range(first, min(first + self.batch_size, each.stop))
