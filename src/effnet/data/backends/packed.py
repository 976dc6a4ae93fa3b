"""Packed data sets through PyTorch's DataLoader."""

import logging
from collections.abc import Sequence

from effnet.data.backends.form import Backend
from effnet.data.batch import DataSource
from effnet.data.files import open_files
from effnet.data.loader import open_loaders
from effnet.data.packed import PackedImages, packed_classes
from effnet.data.packed_index import INDEX
from effnet.data.places import DataPlace, Datasets
from effnet.data.request import DataRequest
from effnet.data.sources import Labels
from effnet.recipe import Recipe

_log = logging.getLogger(__name__)


def open_packed(request: DataRequest) -> DataSource:
    """Open the packed splits under the path, a folder or a URL; see `effnet.data.open_data`."""
    side, classes = request.preprocessing.image_size, request.classes
    limit = request.recipe.data.max_pixels
    opened = {
        split: PackedImages.open(open_files(request.file_path, split), max_pixels=limit)
        for split in request.splits
    }
    if classes is None:
        classes = opened.get("train", opened[request.splits[0]]).classes
    images = {split: of_split.with_classes(classes) for split, of_split in opened.items()}
    for of_split in images.values():
        if of_split.side < side:
            _log.warning(
                "%s holds images of %d px, which are enlarged to %d px",
                of_split.files.where(INDEX),
                of_split.side,
                side,
            )
    return open_loaders(request, images, classes)


def _find_labels(recipe: Recipe, path: DataPlace | str, splits: Sequence[str]) -> Labels:
    assert not isinstance(path, Datasets)  # which `effnet.data.find_labels` has refused
    return Labels(packed_classes(path, splits))


BACKEND = Backend(
    "packed",
    "Packed sets (`effnet prepare pack`) in a folder, or streamed from a URL",
    open_packed,
    find_labels=_find_labels,
    reads_sources=False,
    resizes=True,
)
