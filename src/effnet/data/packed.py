"""Packed data sets: images of one size in a few large files, on a local disk or streamed.

`effnet.data.pack` writes them. Each split is a folder of tar shards in WebDataset's form: per image a member
``<number>.jpg``, or ``<number>.npy`` with the pixels, and ``<number>.cls`` with the target. Beside each shard
lies the index that DALI's ``readers.webdataset`` takes. Members of a tar are not compressed, so pixels are read
directly from memory-mapped files. ``index.json`` holds the class list and every shard's size and SHA-256,
``index.npy`` one record per image: any image can be read by itself, so the order of an epoch and the augmentation
of each image are those of a folder, for any number of workers and processes, streamed or not. Streaming takes one
range request per image, 16 at a time for each worker; images of a batch that lie side by side, as all do in
validation, come in one request of up to a mebibyte.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from effnet.data.decode import EncodedImage, Pixels, Readable, Region
from effnet.data.files import Files, LocalFiles, Part, open_files
from effnet.data.limits import MAX_PIXELS
from effnet.data.packed_index import INDEX, PackedIndex
from effnet.runtime.errors import UserError, one_line
from effnet.runtime.files import sha256_of
from effnet.runtime.progress import ProgressBar


def is_packed(path: Path | str, split: str) -> bool:
    """Return True if `path` is a packed data set with this split; a URL is taken for one."""
    files = open_files(path, split)
    return not isinstance(files, LocalFiles) or (files.root / INDEX).is_file()


def packed_classes(path: Path | str, splits: Sequence[str]) -> list[str]:
    """Return the class names of a packed data set in the order of its targets: train's, if that is among `splits`."""
    split = "train" if "train" in splits else splits[0]
    return PackedIndex.read(open_files(path, split)).classes


@dataclass(frozen=True)
class PackedImages:
    """Index of a packed split: 40 bytes per image, which forked workers share."""

    files: Files
    classes: list[str]
    """class names in the order of the targets"""
    targets: npt.NDArray[np.int32]
    """(N,) position of each image's class in `classes`"""
    side: int
    """most pixels of an image's shorter side"""
    is_raw: bool
    """pixels instead of JPEG"""
    _records: npt.NDArray[Any]
    _shards: list[str]
    max_pixels: int = MAX_PIXELS
    """pixels that an image may have"""
    weights = None
    """a packed set has no weights"""

    @classmethod
    def open(cls, files: Files, *, max_pixels: int = MAX_PIXELS) -> "PackedImages":
        """Read the index.

        Raises:
            UserError: there is none, it is damaged, or a shard of a local one is missing or has another size.
        """
        index = PackedIndex.read(files)
        records = index.records(files)
        if isinstance(files, LocalFiles):
            for shard in index.shards:
                _check_size(files.root / shard.name, shard.bytes)
        return cls(
            files=files,
            classes=index.classes,
            targets=records["target"].astype(np.int32),
            side=index.side,
            is_raw=index.quality is None,
            _records=records,
            _shards=[shard.name for shard in index.shards],
            max_pixels=max_pixels,
        )

    def with_classes(self, classes: Sequence[str]) -> "PackedImages":
        """Return the same images with targets that are positions in `classes`.

        Raises:
            UserError: there are images of a class that is not in it.
        """
        if list(classes) == self.classes:
            return self
        positions = {name: position for position, name in enumerate(classes)}
        present = np.unique(self.targets)
        for name in (self.classes[target] for target in present):
            if name not in positions:
                raise UserError(
                    f"{self.files.where(INDEX)}: no class {one_line(name)} among the {len(classes)} the model "
                    "is trained for"
                )
        moved = np.array([positions.get(name, -1) for name in self.classes], dtype=np.int32)
        return PackedImages(
            self.files,
            list(classes),
            moved[self.targets],
            self.side,
            self.is_raw,
            self._records,
            self._shards,
            self.max_pixels,
        )

    def __len__(self) -> int:
        return len(self.targets)

    def file(self, index: int) -> str:
        """See `effnet.data.loader.Images`."""
        return f"{self.files.where(self._shards[self._records['shard'][index]])}: image {index}"

    def read(self, indices: Sequence[int]) -> Iterator[Callable[[], Readable]]:
        """See `effnet.data.loader.Images`."""
        records = self._records[np.asarray(indices, dtype=np.int64)].tolist()
        wanted = [Part(self._shards[r[0]], r[2], r[2] + r[3]) for r in records]
        for index, record, get in zip(indices, records, self.files.parts(wanted), strict=True):
            yield partial(self._opened, get, self.file(index), record[4:6], record[6:])

    def _opened(
        self,
        get: Callable[[], bytes | memoryview],
        name: str,
        shape: tuple[int, int],
        original: tuple[int, int],
    ) -> Readable:
        data = get()
        image: Readable
        if self.is_raw:
            image = RawImage(np.frombuffer(data, dtype=np.uint8).reshape(*shape, 3))
        else:
            image = EncodedImage(name, bytes(data), self.max_pixels)
        image.original = original
        return image


class RawImage:
    """An image whose pixels are at hand; see `effnet.data.decode.Readable`."""

    def __init__(self, pixels: Pixels) -> None:
        self._pixels = pixels
        self.height, self.width = self.original = pixels.shape[:2]

    def decode(self, min_height: int = 0, min_width: int = 0) -> Pixels:
        """Return the whole image, at full size."""
        return self._pixels.copy()  # PyTorch warns of mapped memory, which can't be written

    def crop(self, region: Region, enough: int = 0) -> Pixels:
        """Return a part, at full size."""
        top, left, height, width = region
        return self._pixels[top : top + height, left : left + width].copy()


def verify(path: Path, *, show_progress: bool = False) -> dict[str, int]:
    """Compare every shard of a packed data set on a local disk with its checksum.

    Args:
        path: folder of the set.
        show_progress: draw a progress bar.

    Returns:
        Number of images by split.

    Raises:
        UserError: a shard that is missing or damaged, or no packed data set.
    """
    counts = {}
    for split in sorted(entry.parent.name for entry in path.glob(f"*/{INDEX}")):
        files = LocalFiles(path / split)
        counts[split] = len(PackedImages.open(files))
        shards = PackedIndex.read(files).shards
        with ProgressBar(f"verifying {split}", len(shards), show=show_progress) as progress:
            for shard in shards:
                if sha256_of(files.root / shard.name) != shard.sha256:
                    raise UserError(f"{files.where(shard.name)} is damaged; pack or copy it again")
                progress.advance(1)
    if not counts:
        raise UserError(f"{path} holds no packed data set; effnet prepare pack DIR {path} makes one")
    return counts


def _check_size(path: Path, expected: int) -> None:
    try:
        found = path.stat().st_size
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; pack or copy it again") from None
    if found != expected:
        raise UserError(f"{path} has {found} bytes instead of {expected}; pack or copy it again")
