"""Images as a program has them: paths, folders, Pillow images, arrays, tensors, and lists of these."""

import glob
import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from os import PathLike, fspath
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias, Union

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from effnet.data.decode import EncodedImage, Readable
from effnet.data.folder import IMAGE_SUFFIXES
from effnet.data.limits import MAX_PIXELS
from effnet.data.packed import RawImage
from effnet.data.pixels import of_array, of_pillow, of_tensor
from effnet.runtime.errors import UserError
from effnet.runtime.suggestions import suggested_path

ImageLike: TypeAlias = Union[str, "PathLike[str]", Image.Image, npt.NDArray[Any], torch.Tensor]
"""A file, or the pixels of an image.

- a path, or a pattern such as ``*.jpg``; a folder stands for all images below it
- a Pillow image of any mode
- an array uint8 (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), or a batch (N, H, W, 3)
- a tensor uint8, or of floats from 0 to 1, (1 or 3, H, W) or (N, 3, H, W)

Colours are RGB.
"""


class NamedImage(NamedTuple):
    """An image that is not opened yet.

    Attributes:
        name: its path; empty for pixels.
        open: opens it, or raises `effnet.data.decode.BadImageError`.
    """

    name: str
    open: Callable[[], Readable]


def is_single(images: object) -> bool:
    """Return True for an argument that stands for one image, so that one answer is expected."""
    if isinstance(images, str | PathLike):
        return Path(fspath(images)).is_file()
    if isinstance(images, np.ndarray | torch.Tensor):
        return images.ndim < 4
    return isinstance(images, Image.Image)


def named_images(
    images: ImageLike | Sequence[ImageLike], *, max_pixels: int = MAX_PIXELS
) -> list[NamedImage]:
    """Return every image of an argument, in order.

    Args:
        images: one or many.
        max_pixels: pixels that the image in a file may have.

    Raises:
        UserError: an argument that is no image or names none.
    """
    return list(_each(images, max_pixels))


def _each(images: Any, max_pixels: int) -> Iterator[NamedImage]:
    if isinstance(images, str | PathLike):
        yield from (
            NamedImage(str(path), partial(EncodedImage, path, max_pixels=max_pixels))
            for path in find_images([fspath(images)])
        )
    elif isinstance(images, Image.Image):
        yield NamedImage("", partial(_opened, images))
    elif isinstance(images, np.ndarray):
        arrays = images if images.ndim == 4 else [images]
        yield from (NamedImage("", partial(RawImage, of_array(array))) for array in arrays)
    elif isinstance(images, torch.Tensor):
        tensors = images if images.ndim == 4 else [images]
        yield from (NamedImage("", partial(RawImage, of_tensor(tensor))) for tensor in tensors)
    elif isinstance(images, list | tuple):
        for image in images:
            yield from _each(image, max_pixels)
    else:
        raise UserError(
            f"no image: {type(images).__name__}; pass a path, a Pillow image, an array or a tensor"
        )


def _opened(image: Image.Image) -> Readable:
    return RawImage(of_pillow(image))


def find_images(arguments: Sequence[str]) -> list[Path]:
    """Return the image files of arguments: files, folders (all images below them) and patterns such as ``*.jpg``.

    Raises:
        UserError: an argument that names none.
    """
    paths: list[Path] = []
    for argument in arguments:
        try:
            paths += _found(argument)
        except OSError as error:
            raise UserError(f"{error.filename or argument}: {error.strerror}") from None
    return paths


def _found(argument: str) -> list[Path]:
    path = Path(argument)
    if path.is_dir():
        if not (found := _images_below(path)):
            raise UserError(f"{argument}: holds no images")
        return found
    if path.exists():
        return [path]
    if not (found := sorted(match for match in _matches(argument) if match.is_file())):
        raise UserError(f"{argument}: no such image{suggested_path(path)}")
    return found


def _images_below(folder: Path) -> list[Path]:
    """Return the images in a folder and those in it, sorted. Links to folders, which may form a loop, are left out."""
    found: list[Path] = []
    folders = [os.fspath(folder)]
    while folders:
        with os.scandir(folders.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)
                elif os.fsencode(entry.name).lower().endswith(IMAGE_SUFFIXES) and Path(entry.path).is_file():
                    found.append(Path(entry.path))
    return sorted(found)


def _matches(pattern: str) -> list[Path]:
    parts = Path(pattern).parts
    if "**" not in parts:
        return [Path(name) for name in glob.glob(pattern)]
    # Links to folders, which may form a loop, are followed by glob, not by pathlib. That in turn finds hidden files.
    root, parts = (Path(parts[0]), parts[1:]) if Path(pattern).is_absolute() else (Path(), parts)
    found = root.glob(os.path.join(*parts))
    return [
        match
        for match in found
        if not any(part.startswith(".") for part in set(match.parts).difference(parts))
    ]
