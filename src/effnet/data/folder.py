"""Data sets as folders: ``<root>/<split>/<class>/<image>``."""

import errno
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np
import numpy.typing as npt

from effnet.data.image_files import ImageFiles
from effnet.data.limits import MAX_PIXELS
from effnet.runtime.errors import UserError

# as bytes, since file names stay bytes: that is how the index keeps them
IMAGE_SUFFIXES = (
    *(b".jpg", b".jpeg", b".jpe", b".jfif", b".png", b".webp", b".bmp", b".gif"),
    *(b".tif", b".tiff", b".ppm", b".pgm", b".pnm"),
)
_FOLDERS_AT_ONCE = 16  # that a thread lists: a task costs as much as a small folder
LAYOUT = "images belong in train/<class>/ and val/<class>/"


@dataclass(frozen=True)
class ImageFolder(ImageFiles):
    """Index of a split's images, ordered by class folder and then file name; the index holds the names alone."""

    def encoded_name(self, index: int) -> bytes:
        """See `ImageFiles`."""
        return os.fsencode(self.classes[self.targets[index]]) + b"/" + super().encoded_name(index)


def read_classes(path: Path, split: str = "train") -> list[str]:
    """Class names of a data set: the sorted names of the folders in its ``train/`` (or another split).

    Raises:
        UserError: no such folder, no ``train/`` in it, or no class folder in that.
    """
    if not path.is_dir():
        raise UserError(f"{path}: no such folder")
    if not (path / split).is_dir():
        raise UserError(f"{path} has no {split}/ folder; {LAYOUT}")
    try:
        with os.scandir(path / split) as entries:
            names = sorted(e.name for e in entries if not e.name.startswith(".") and _leads_to(e.is_dir))
    except OSError as error:
        raise UserError(f"{path / split}: {error.strerror}") from None
    if not names:
        raise UserError(f"{path / split} holds no class folders; {LAYOUT}")
    return names


def split_classes(path: Path, splits: Sequence[str]) -> list[str]:
    """Class names of a data set of which `splits` are opened: train's, or val's own where it stands alone.

    Raises:
        UserError: as `read_classes`.
    """
    train_absent = "train" not in splits and path.is_dir() and not (path / "train").is_dir()
    return read_classes(path, "val" if train_absent else "train")


def list_images(
    path: Path,
    split: str,
    classes: Sequence[str] | None = None,
    *,
    allow_empty: bool = False,
    max_pixels: int = MAX_PIXELS,
) -> ImageFolder:
    """Index the images of ``path/split``.

    Args:
        classes: class names in the order of the targets; the split may lack some of them [default: its
            folders].
        allow_empty: class folders without images are no error.
        max_pixels: pixels that an image may have; larger ones are broken.

    Raises:
        UserError: a folder that is missing, empty, or of no class in `classes`; it is named.
    """
    folders = read_classes(path, split)
    classes = list(folders if classes is None else classes)
    positions = {name: position for position, name in enumerate(classes)}
    for name in folders:
        if name not in positions:
            raise UserError(
                f"{path / split / name}: no such class among the {len(classes)} the model is trained for; "
                "remove the folder, or add the class to train/ and train again"
            )
    root = path / split
    with ThreadPoolExecutor(max_workers=16) as pool:  # network file systems answer in parallel
        parts = [
            folders[first : first + _FOLDERS_AT_ONCE] for first in range(0, len(folders), _FOLDERS_AT_ONCE)
        ]
        listings = list(chain.from_iterable(pool.map(partial(_listings, root, allow_empty), parts)))
    counts = [len(ends) for _, ends in listings]
    # ends count from the start of a class folder's names: shift them to the start of all names
    starts = np.cumsum([0] + [len(names) for names, _ in listings[:-1]])
    return ImageFolder(
        root=root,
        classes=classes,
        targets=np.repeat(np.array([positions[name] for name in folders], dtype=np.int32), counts),
        _names=np.frombuffer(b"".join(names for names, _ in listings), dtype=np.uint8),
        _ends=np.concatenate([ends + start for (_, ends), start in zip(listings, starts, strict=True)]),
        max_pixels=max_pixels,
    )


def _listings(root: Path, allow_empty: bool, folders: list[str]) -> list[tuple[bytes, npt.NDArray[np.int64]]]:
    return [_image_names(allow_empty, root / name) for name in folders]


def _image_names(allow_empty: bool, folder: Path) -> tuple[bytes, npt.NDArray[np.int64]]:
    """Sorted names of the images in a folder, end to end, and where each ends."""
    try:
        with os.scandir(os.fsencode(folder)) as entries:
            names = sorted(e.name for e in entries if _is_image(e))
    except OSError as error:
        raise UserError(f"{folder}: {error.strerror}") from None
    if not names and not allow_empty:
        raise UserError(f"{folder}: a class folder without images; add some or remove it")
    return b"".join(names), np.cumsum([len(name) for name in names], dtype=np.int64)


def holds_image(folder: str) -> bool:
    """Return True for a folder with an image in it, not in a folder of it."""
    try:
        with os.scandir(os.fsencode(folder)) as entries:
            return any(_is_image(entry) for entry in entries)
    except OSError:
        return False


def _is_image(entry: os.DirEntry[bytes]) -> bool:
    # dot files: macOS leaves "._name.jpg" beside each image it copies
    return (
        entry.name.lower().endswith(IMAGE_SUFFIXES)
        and not entry.name.startswith(b".")
        and _leads_to(entry.is_file)
    )


def _leads_to(kind: Callable[[], bool]) -> bool:
    """Return the answer of `DirEntry.is_dir` or `is_file`; a link that leads to itself is neither."""
    try:
        return kind()
    except OSError as error:
        if error.errno == errno.ELOOP:
            return False
        raise
