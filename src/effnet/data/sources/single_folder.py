"""One folder of classes, ``<class>/<image>``, without a division into training and validation."""

import os
from pathlib import Path

from effnet.data.folder import ImageFolder, holds_image, list_images, read_classes
from effnet.data.sources.folder import has_splits
from effnet.data.sources.form import UNSPLIT, Labels, Listing, Source, SourceRequest


def _detects(path: Path) -> bool:
    if not path.is_dir() or has_splits(path):
        return False
    with os.scandir(path) as entries:
        return any(not e.name.startswith(".") and holds_image(e.path) for e in entries)


def _labels(request: SourceRequest) -> Labels:
    path = request.path.absolute()
    return Labels(read_classes(path.parent, path.name))


def _list(request: SourceRequest) -> Listing:
    images = _images(request)
    return Listing(images.classes, {UNSPLIT: images})


def _images(request: SourceRequest) -> ImageFolder:
    # The folder is listed as it would be as a split; "." has no name of its own.
    path = request.path.absolute()
    limit = request.settings.max_pixels
    return list_images(
        path.parent, path.name, request.classes, allow_empty=request.for_check, max_pixels=limit
    )


SOURCE = Source(
    "single-folder",
    "One folder of class folders, `<class>/`; `--val-split` of each class is for validation",
    _detects,
    _labels,
    _list,
    _images,
)
