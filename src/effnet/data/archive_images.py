"""Images in an archive: ``<class>/<image>``, or ``train/<class>/<image>`` and ``val/<class>/<image>``."""

import functools
import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from effnet.data.archive import RECORD, Archive, MemberError, members
from effnet.data.decode import BadImageError, EncodedImage
from effnet.data.folder import IMAGE_SUFFIXES
from effnet.data.image_files import Targets
from effnet.data.limits import MAX_PIXELS, most_bytes
from effnet.runtime.errors import UserError
from effnet.runtime.text import printable

_log = logging.getLogger(__name__)
_SPLITS = ("train", "val")
_OF_MACOS = "__MACOSX"
_Folder = tuple[str, ...]
_Files = dict[bytes, tuple[int, ...]]
"""record of each image in a folder, by the name of the file"""


@dataclass(frozen=True)
class ArchiveImages:
    """Index of images in an archive. An image costs its name and 49 bytes, which forked workers share."""

    root: Path
    """the archive"""
    folder: str
    """folder in the archive that names start from, with a slash at its end; empty for the archive itself"""
    classes: list[str]
    """class names in the order of the targets"""
    targets: Targets
    """int32 (N,) position of each image's class in `classes`"""
    _archive: Archive
    _rows: npt.NDArray[np.int64]
    """(N,) position of each image in the three arrays below, which may hold more"""
    _names: npt.NDArray[np.uint8]
    """paths below `folder`, end to end"""
    _ends: npt.NDArray[np.int64]
    _records: npt.NDArray[Any]
    max_pixels: int = MAX_PIXELS
    """pixels that an image may have"""
    weights: npt.NDArray[np.float32] | None = None
    """(N,) weight of each image in the loss; None for equal ones"""

    def __len__(self) -> int:
        return len(self.targets)

    def file(self, index: int) -> str:
        """See `effnet.data.loader.Images`: the archive, and the member in it."""
        return f"{self.root}: {self.folder}{self.name(index)}"

    def name(self, index: int) -> str:
        """Path of image `index` from `folder`."""
        return _text(self._name(index))

    def _name(self, index: int) -> bytes:
        row = self._rows[index]
        return self._names[self._ends[row - 1] if row else 0 : self._ends[row]].tobytes()

    def key(self, index: int) -> bytes:
        """Return eight bytes that change with the image's name, place, size or checksum, or with the archive's time."""
        record = self._records[self._rows[index]].tobytes()
        time = os.stat(self.root).st_mtime_ns.to_bytes(8)
        name = self.folder.encode("utf-8", "surrogateescape") + self._name(index)
        return hashlib.blake2b(record + time + name, digest_size=8).digest()

    def fingerprint(self) -> str:
        """SHA-256 of the class list and of every image's class and name."""
        digest = hashlib.sha256(json.dumps(self.classes).encode())
        for part in (self.targets, self._rows, self._names, self._ends):
            digest.update(part.data)
        return digest.hexdigest()

    def subset(self, indices: npt.NDArray[np.int64]) -> Self:
        """Return the images at `indices` (M,), in that order."""
        weights = None if self.weights is None else self.weights[indices]
        return replace(self, targets=self.targets[indices], weights=weights, _rows=self._rows[indices])

    def read(self, indices: Sequence[int]) -> Iterator[Callable[[], EncodedImage]]:
        """See `effnet.data.loader.Images`."""
        return (partial(self.image, index) for index in indices)

    def content(self, index: int) -> bytes:
        """Content of image `index`.

        Raises:
            BadImageError: the member can't be read, or is beyond a limit.
        """
        try:
            return self._archive.content(self._records[self._rows[index]], most_bytes(self.max_pixels))
        except MemberError as error:
            raise BadImageError(self.file(index), f"can't be read: {error}") from None

    def image(self, index: int) -> EncodedImage:
        """Open image `index`.

        Raises:
            BadImageError: the member can't be read, is no image, or is beyond a limit.
        """
        return EncodedImage(self.file(index), self.content(index), self.max_pixels)


@dataclass(frozen=True)
class ArchiveIndex:
    """The folders of an archive that hold images.

    Attributes:
        path: the archive.
        folders: the images of each.
        root: folder that holds the splits or the classes.
        splits: the splits that are in it; empty if it holds the classes.
    """

    path: Path
    folders: dict[_Folder, _Files]
    root: _Folder
    splits: tuple[str, ...]

    def classes(self, split: str) -> list[str]:
        """Return the class folders of a split, or of the archive if it has none, sorted."""
        return sorted(self._class_folders(split))

    def images(self, split: str, classes: Sequence[str], max_pixels: int = MAX_PIXELS) -> ArchiveImages:
        """Index a split's images, ordered by class folder and then file name, as those of a folder are.

        Args:
            split: ``train`` or ``val``; empty for an archive without splits.
            classes: class names in the order of the targets; the split may lack some of them.
            max_pixels: pixels that an image may have; larger ones are broken.

        Raises:
            UserError: a folder of no class in `classes`.
        """
        above = (*self.root, split) if split else self.root
        positions = {name: position for position, name in enumerate(classes)}
        files: list[tuple[bytes, tuple[int, ...]]] = []
        targets: list[int] = []
        for label, of_class in sorted(self._class_folders(split).items()):
            if label not in positions:
                raise UserError(
                    f"{self.path}: {'/'.join((*above, label))}: no such class among the {len(classes)} the model is "
                    "trained for; remove the folder, or add the class to train/ and train again"
                )
            files += [(_bytes(label) + b"/" + name, of_class[name]) for name in sorted(of_class)]
            targets += [positions[label]] * len(of_class)
        return self._indexed(above, files, list(classes), np.array(targets, np.int32), max_pixels)

    def all_images(self, max_pixels: int = MAX_PIXELS) -> ArchiveImages:
        """Index every image in whatever folder, ordered by name; targets are -1."""
        files = [
            (_bytes("/".join((*folder, ""))) + name, record)
            for folder, of_folder in self.folders.items()
            for name, record in of_folder.items()
        ]
        targets = np.full(len(files), -1, np.int32)
        return self._indexed((), sorted(files), [], targets, max_pixels)

    def _class_folders(self, split: str) -> dict[str, _Files]:
        above = (*self.root, split) if split else self.root
        return {
            folder[-1]: files
            for folder, files in self.folders.items()
            if len(folder) == len(above) + 1 and folder[:-1] == above
        }

    def _indexed(
        self,
        folder: _Folder,
        files: list[tuple[bytes, tuple[int, ...]]],
        classes: list[str],
        targets: Targets,
        max_pixels: int,
    ) -> ArchiveImages:
        return ArchiveImages(
            root=self.path,
            folder="".join(f"{part}/" for part in folder),
            classes=classes,
            targets=targets,
            _archive=Archive(self.path),
            _rows=np.arange(len(files)),
            _names=np.frombuffer(b"".join(name for name, _ in files), np.uint8),
            _ends=np.cumsum([len(name) for name, _ in files], dtype=np.int64),
            _records=np.array([record for _, record in files], RECORD),
            max_pixels=max_pixels,
        )

    def tell_left_out(self) -> None:
        """Log a warning that names an image that is in no class folder."""
        depth = len(self.root) + 1 + bool(self.splits)
        for folder, files in self.folders.items():
            if len(folder) != depth or (self.splits and folder[len(self.root)] not in self.splits):
                _log.warning(
                    "%s: %s images are in no class folder and left out, such as %s",
                    self.path,
                    f"{len(files):,}",
                    printable("/".join((*folder, _text(next(iter(files)))))),
                )


def index_archive(path: Path) -> ArchiveIndex:
    """Find the images of an archive.

    The classes may be in a folder, and so may ``train/`` and ``val/``. Names and folders that begin with a dot are left
    out. Of members of the same name the last one counts.

    Args:
        path: a .tar or .zip file.

    Raises:
        UserError: an archive that can't be read; see `effnet.data.archive.members`.
    """
    try:
        state = os.stat(path)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
    return _indexed(path, state.st_mtime_ns, state.st_size, state.st_ino)


@functools.lru_cache(maxsize=1)  # a run asks for the classes first, then for the images
def _indexed(path: Path, *version: int) -> ArchiveIndex:
    folders: dict[_Folder, _Files] = {}
    for name, record in members(path):
        *folder, file = [part for part in name.split("/") if part not in ("", ".")] or [""]
        if _is_image(folder, file):
            folders.setdefault(tuple(folder), {})[_bytes(file)] = record
    index = ArchiveIndex(path, folders, *_layout(list(folders)))
    index.tell_left_out()
    return index


def _is_image(folder: Sequence[str], file: str) -> bool:
    hidden = any(part.startswith(".") or part == _OF_MACOS for part in (*folder, file))
    return not hidden and _bytes(file).lower().endswith(IMAGE_SUFFIXES)


def _layout(folders: list[_Folder]) -> tuple[_Folder, tuple[str, ...]]:
    """Return the folder that holds the splits or the classes, and the splits in it, of the folders that hold images."""
    common = _common(folders)
    for depth, name in enumerate(common):
        if name in _SPLITS:
            return common[:depth], (name,)
    below = {folder[len(common)] for folder in folders if len(folder) > len(common)}
    if splits := tuple(split for split in _SPLITS if split in below):
        return common, splits
    return (common, ()) if below else (common[:-1], ())  # a single class is itself what all have in common


def _common(folders: list[_Folder]) -> _Folder:
    """Return the folder that all of them are in, or are."""
    shared: list[str] = []
    for names in zip(*folders, strict=False):
        if len(set(names)) > 1:
            break
        shared.append(names[0])
    return tuple(shared)


def _bytes(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape")


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")
