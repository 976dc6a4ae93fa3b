"""PyTorch data sets that a program hands over in place of a path."""

from collections.abc import Sequence
from dataclasses import replace
from typing import cast

import numpy as np

from effnet.data.dataset_images import DatasetImages
from effnet.data.image_files import Targets
from effnet.data.places import ALL, Datasets
from effnet.data.sources.form import UNSPLIT, Labels, Listing, SourceImages, SourceRequest
from effnet.runtime.errors import UserError, one_line


def find_labels(place: Datasets) -> Labels:
    """Return the labels of data sets, which are those of the one for training, if there is one."""
    images = place.images(next(split for split in (ALL, "train", "val") if split in place.by_split))
    return Labels(images.classes, images.targets.ndim == 2)


def list_images(place: Datasets, request: SourceRequest, seed: int) -> Listing:
    """Return the images of data sets; see `effnet.data.sources.form.Source`.

    Raises:
        UserError: there is none for a split, or a target is of no known class.
    """
    classes = list(request.classes or find_labels(place).classes)
    splits = {UNSPLIT: ALL} if ALL in place.by_split else {split: split for split in request.splits}
    images = {
        name: _with_classes(replace(place.images(split), seed=seed), classes)
        for name, split in splits.items()
    }
    # Not encoded, so they are neither checked before the run nor read by DALI; all else is there.
    return Listing(classes, {name: cast(SourceImages, of_split) for name, of_split in images.items()})


def _with_classes(images: DatasetImages, classes: Sequence[str]) -> DatasetImages:
    """Return the same images with targets that are positions in `classes`.

    Raises:
        UserError: there are images of a class that is not in it.
    """
    if images.classes == list(classes):
        return images
    positions = {name: position for position, name in enumerate(classes)}
    moved = np.array([positions.get(name, -1) for name in images.classes], np.int32)
    several = images.targets.ndim == 2
    present = np.flatnonzero(images.targets.any(0)) if several else np.unique(images.targets)
    if len(unknown := present[moved[present] < 0]):
        name = one_line(images.classes[unknown[0]])
        raise UserError(
            f"{type(images.dataset).__name__}: no class {name} among the {len(classes)} of training"
        )
    targets: Targets
    if several:
        targets = np.zeros((len(images), len(classes)), np.uint8)
        targets[:, moved[present]] = images.targets[:, present]
    else:
        targets = moved[images.targets]
    return replace(images, classes=list(classes), targets=targets)
