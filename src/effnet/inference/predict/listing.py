"""The images of a source."""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from effnet.data.decode import EncodedImage
from effnet.data.folder import IMAGE_SUFFIXES
from effnet.data.limits import MAX_PIXELS
from effnet.data.loader import Images
from effnet.runtime.errors import UserError


def open_source(path: Path, *, max_pixels: int = MAX_PIXELS) -> Images:
    """List every image of a folder and of those in it, in the order of their paths.

    Raises:
        UserError: it can't be read, or holds no images.
    """
    if not path.is_dir():
        raise UserError(f"{path}: no such folder")
    names: list[bytes] = []
    for folder, folders, files in os.walk(os.fsencode(path), onerror=_refuse):
        folders.sort()
        folders[:] = [name for name in folders if not name.startswith(b".")]
        below = os.path.relpath(folder, os.fsencode(path)) + b"/" if folder != os.fsencode(path) else b""
        names += [below + name for name in sorted(files) if _is_image(name)]
    if not names:
        raise UserError(f"{path}: holds no images")
    ends = np.cumsum([len(name) for name in names], dtype=np.int64)
    return _Files(path, np.frombuffer(b"".join(names), np.uint8), ends, max_pixels)


def _refuse(error: OSError) -> None:
    raise UserError(f"{error.filename}: {error.strerror}")


def _is_image(name: bytes) -> bool:
    return name.lower().endswith(IMAGE_SUFFIXES) and not name.startswith(b".")


@dataclass(frozen=True)
class _Files:
    """Image files below a folder; their names lie end to end in one buffer, which forked workers share."""

    root: Path
    names: npt.NDArray[np.uint8]
    ends: npt.NDArray[np.int64]
    max_pixels: int

    @property
    def targets(self) -> npt.NDArray[np.int32]:
        return np.zeros(len(self), np.int32)

    def __len__(self) -> int:
        return len(self.ends)

    def file(self, index: int) -> str:
        first = self.ends[index - 1] if index else 0
        return f"{self.root}/{os.fsdecode(self.names[first : self.ends[index]].tobytes())}"

    def read(self, indices: Sequence[int]) -> Iterator[Callable[[], EncodedImage]]:
        return (partial(EncodedImage, self.file(index), max_pixels=self.max_pixels) for index in indices)
