"""Data sources: where images and their labels come from, one module for each kind.

A new one is a module here that makes a `SOURCE`, and its name in `effnet.recipe.choices.SourceName`, whose order is
that of the detection.
"""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from effnet.data.places import DataPlace, Datasets
from effnet.data.sources import handed_over
from effnet.data.sources.folds import fold_numbers
from effnet.data.sources.form import (
    UNSPLIT,
    Labels,
    Listing,
    Source,
    SourceImages,
    SourceRequest,
    Splits,
)
from effnet.data.sources.record import SplitRecord
from effnet.data.sources.splitting import Indices, divide
from effnet.recipe import DataSettings, Recipe, ResolvedRecipe
from effnet.recipe.choices import SourceName
from effnet.runtime.errors import UserError
from effnet.runtime.progress import working
from effnet.runtime.registry import ModuleRegistry

__all__ = [
    "SOURCES",
    "Labels",
    "Source",
    "SourceImages",
    "SplitRecord",
    "Splits",
    "find_labels",
    "find_source",
    "open_all",
    "open_for_check",
    "open_splits",
]

AUTO = "auto"
SOURCES: ModuleRegistry[Source] = ModuleRegistry(SourceName, __name__, "SOURCE")
"""the registry, by the value of ``--source``"""

_log = logging.getLogger(__name__)


def find_source(path: Path, settings: DataSettings) -> Source:
    """Return the kind of source that a path is, or that ``--source`` says.

    Raises:
        UserError: a file of no kind.
    """
    if settings.source != AUTO:
        return SOURCES[settings.source]
    for source in SOURCES.values():
        if source.detects(path):
            return source
    if path.is_file():
        raise UserError(
            f"{path}: no kind of data set ends in {path.suffix or path.name}; name it by --source"
        )
    return SOURCES["folder"]  # whose error says what is missing


def find_labels(
    recipe: Recipe | ResolvedRecipe, path: DataPlace | str, splits: Sequence[str] = ("train", "val")
) -> Labels:
    """Return the labels of a source without opening its images: class names, and whether an image has several.

    Raises:
        UserError: see `open_splits`.
    """
    if isinstance(path, Datasets):
        return handed_over.find_labels(path)
    request = SourceRequest(Path(path), recipe.data, splits)
    return find_source(request.path, recipe.data).labels(request)


def open_splits(
    recipe: Recipe | ResolvedRecipe,
    path: DataPlace | str,
    splits: Sequence[str] = ("train", "val"),
    classes: Sequence[str] | None = None,
    *,
    stored: SplitRecord | None = None,
) -> Splits:
    """List the images of a source by split; where it has no splits, they are made by ``--val-split`` and ``--seed``.

    Args:
        recipe: settings of the data, and the seed.
        path: the source, or data sets.
        splits: splits to open, of ``train`` and ``val``.
        classes: class names in the order of the targets; an image of another class is an error [default: those of
            ``train``, or of ``val`` where only that is opened and there is no ``train``].
        stored: the split of an earlier run, which comes back.

    Raises:
        UserError: what can't be found or read, a class that is unknown, an image of `stored` that is gone, or a split
            without images.
    """
    request = SourceRequest(Path(str(path)), recipe.data, splits, classes)
    if isinstance(path, Datasets):
        listing = handed_over.list_images(path, request, recipe.compute.seed)
    else:
        with working(f"looking through {path}"):
            listing = find_source(request.path, recipe.data).list_images(request)
    images, made = dict(listing.images), None
    if recipe.data.folds is not None and UNSPLIT not in images and not listing.by_fold:
        raise UserError(
            f"--folds {recipe.data.folds}: {path} is divided already; name images that are not, such as train/"
        )
    if UNSPLIT in images:
        images, made = _divided(listing, request, recipe.compute.seed, stored)
    for split in splits:
        if not len(images[split]):
            raise UserError(f"{path}: no image is for {_PURPOSE[split]}; {_REMEDY[split]}")
    several = any(of_split.targets.ndim == 2 for of_split in images.values())
    return Splits(listing.classes, {split: images[split] for split in splits}, several, made)


_PURPOSE = {"train": "training", "val": "validation"}
_REMEDY = {
    "train": "name some, or take a smaller --val-split",
    "val": "name some, or train without by --training-only",
}


def _divided(
    listing: Listing, request: SourceRequest, seed: int, stored: SplitRecord | None
) -> tuple[dict[str, SourceImages], SplitRecord]:
    """Return the images by split, as an earlier run had them or as a seed divides them, and the record of it."""
    images, where = listing.images[UNSPLIT], request.path
    places = None if stored is None else stored.find(images, request.splits, where)
    if stored is not None and places is not None:
        return {split: images.subset(of_split) for split, of_split in places.items()}, stored
    if stored is not None and stored.is_binding:
        if "train" in request.splits:
            raise UserError(f"{where}: none of its images are of the run's data; start a new run")
        _log.info("%s: none of its images are of the run's data; all are validated", where)
        return {"val": images}, SplitRecord.of({"val": images})
    train, val, how = _drawn(listing, request, seed)
    by_split = {"train": images.subset(train), "val": images.subset(val)}
    _log.info(
        "%s has no split of its own: %s images are for training, %s for validation (%s, seed %s)",
        *(where, f"{len(train):,}", f"{len(val):,}", how, seed),
    )
    return by_split, SplitRecord.of(by_split)


def _drawn(listing: Listing, request: SourceRequest, seed: int) -> tuple[Indices, Indices, str]:
    """Return the positions of the images for training and for validation, and the flags that say so."""
    targets, settings = listing.images[UNSPLIT].targets, request.settings
    if settings.fold is None:
        return *divide(
            targets, settings.val_split, seed, listing.groups
        ), f"--val-split {settings.val_split:g}"
    if settings.folds is None:
        raise UserError(
            f"--fold {settings.fold}: {request.path} has no column of folds; see --fold-column, or give --folds"
        )
    if settings.fold >= settings.folds:
        raise UserError(f"--fold {settings.fold}: --folds {settings.folds} are counted from 0")
    numbers = fold_numbers(targets, settings.folds, seed, listing.groups)
    train, val = np.flatnonzero(numbers != settings.fold), np.flatnonzero(numbers == settings.fold)
    return train, val, f"--folds {settings.folds} --fold {settings.fold}"


def open_for_check(path: Path | str, settings: DataSettings) -> dict[str, SourceImages]:
    """List the images of a source by split, for a check: what it would find is no error. Without splits: ``images``.

    Raises:
        UserError: what can't be found or read.
    """
    request = SourceRequest(Path(path), settings, for_check=True)
    listing = find_source(request.path, settings).list_images(request)
    return {split or "images": images for split, images in listing.images.items() if len(images.classes)}


def open_all(path: Path | str, recipe: Recipe | ResolvedRecipe) -> SourceImages:
    """List every image of a source, whatever its split: for predictions. Labels are not needed.

    Raises:
        UserError: what can't be found or read, or a source without images.
    """
    request = SourceRequest(Path(path), recipe.data)
    images = find_source(request.path, recipe.data).list_all(request)
    if not len(images):
        raise UserError(f"{path}: holds no images")
    return images
