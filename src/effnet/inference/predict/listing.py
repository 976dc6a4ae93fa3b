"""The images of a source, whatever their classes."""

import os
from pathlib import Path

import numpy as np

from effnet.data.folder import IMAGE_SUFFIXES
from effnet.data.image_files import ImageFiles, image_list
from effnet.data.sources import SourceImages, find_source, open_all
from effnet.recipe import Recipe
from effnet.runtime.errors import UserError
from effnet.runtime.suggestions import suggested_path

_FOLDERS = ("folder", "single-folder")
"""sources that are image files in folders, whose classes and splits do not matter here"""


def open_source(path: Path, recipe: Recipe) -> SourceImages:
    """List every image of a source; of a folder, all below it in the order of their paths.

    Raises:
        UserError: it can't be read, or holds no images.
    """
    if path.is_dir() and find_source(path, recipe.data).name in _FOLDERS:
        return _below(path, recipe.data.max_pixels)
    if not path.exists():
        raise UserError(f"{path}: no such file or folder{suggested_path(path)}")
    return open_all(path, recipe)


def _below(path: Path, max_pixels: int) -> ImageFiles:
    root, names = os.fsencode(path), []
    for folder, folders, files in os.walk(root, onerror=_refuse):
        folders[:] = sorted(name for name in folders if not name.startswith(b"."))
        below = b"" if folder == root else os.path.relpath(folder, root) + b"/"
        names += [below + name for name in sorted(files) if _is_image(name)]
    if not names:
        raise UserError(f"{path}: holds no images")
    return image_list(path, [], np.full(len(names), -1, np.int32), names, max_pixels=max_pixels)


def _refuse(error: OSError) -> None:
    raise UserError(f"{os.fsdecode(error.filename)}: {error.strerror}")


def _is_image(name: bytes) -> bool:
    return name.lower().endswith(IMAGE_SUFFIXES) and not name.startswith(b".")
