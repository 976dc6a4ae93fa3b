"""A folder with ``train/<class>/<image>`` and ``val/<class>/<image>``."""

from pathlib import Path

import numpy as np

from effnet.data.folder import LAYOUT, list_images, read_classes, split_classes
from effnet.data.image_files import ImageFiles, image_list
from effnet.data.sources.form import Labels, Listing, Source, SourceRequest
from effnet.runtime.errors import UserError
from effnet.runtime.suggestions import suggested_path

SPLITS = ("train", "val")


def has_splits(path: Path) -> bool:
    """Return True for a folder with ``train/`` or ``val/``."""
    return any((path / split).is_dir() for split in SPLITS)


def _labels(request: SourceRequest) -> Labels:
    return Labels(split_classes(request.path, request.splits))


def _list(request: SourceRequest) -> Listing:
    if request.for_check:
        return _list_for_check(request)
    classes = list(request.classes or split_classes(request.path, request.splits))
    limit = request.settings.max_pixels
    images = {split: list_images(request.path, split, classes, max_pixels=limit) for split in request.splits}
    return Listing(classes, images)


def _list_for_check(request: SourceRequest) -> Listing:
    splits, limit = _splits_of(request.path), request.settings.max_pixels
    images = {split: list_images(request.path, split, allow_empty=True, max_pixels=limit) for split in splits}
    return Listing(images[splits[0]].classes, images)


def _splits_of(path: Path) -> list[str]:
    if not path.is_dir():
        raise UserError(f"{path}: no such folder{suggested_path(path)}")
    if splits := [split for split in SPLITS if (path / split).is_dir()]:
        return splits
    raise UserError(f"{path} has no train/ and no val/ folder; {LAYOUT}")


def _list_all(request: SourceRequest) -> ImageFiles:
    splits = _splits_of(request.path)
    classes = sorted({name for split in splits for name in read_classes(request.path, split)})
    parts = [
        list_images(request.path, split, classes, allow_empty=True, max_pixels=request.settings.max_pixels)
        for split in splits
    ]
    names = [
        f"{split}/".encode() + part.encoded_name(index)
        for split, part in zip(splits, parts, strict=True)
        for index in range(len(part))
    ]
    targets = np.concatenate([part.targets for part in parts])
    return image_list(request.path, classes, targets, names, max_pixels=request.settings.max_pixels)


SOURCE = Source(
    "folder",
    "A folder with `train/<class>/` and `val/<class>/`",
    has_splits,
    _labels,
    _list,
    _list_all,
)
