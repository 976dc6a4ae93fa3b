"""The images that two models are compared on, with their labels where there are any."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from effnet.data.sources import SourceImages, find_source, open_for_check
from effnet.data.sources.folder import has_splits
from effnet.inference.compare.classes import Classes
from effnet.inference.predict.listing import open_source
from effnet.recipe import Recipe
from effnet.runtime.errors import UserError


@dataclass(frozen=True)
class ComparedImages:
    """Images of a source.

    Attributes:
        images: those of ``val/`` where there is one, else all.
        targets: int64 (N,), the position of each image's class among the models' classes; None without labels.
    """

    images: SourceImages
    targets: npt.NDArray[np.int64] | None


def open_compared(path: Path, recipe: Recipe, classes: Classes, *, labelled: bool = True) -> ComparedImages:
    """List the images of a source.

    Args:
        path: a data source; images in a folder without class folders have no labels.
        recipe: settings of the source.
        classes: of the models.
        labelled: take the labels of the source; without, class folders are folders like others.

    Raises:
        UserError: it can't be read, holds no images, has several labels for an image, or a class that the models lack.
    """
    if not labelled or (
        path.is_dir() and find_source(path, recipe.data).name == "folder" and not has_splits(path)
    ):
        return ComparedImages(open_source(path, recipe), None)
    by_split = open_for_check(path, recipe.data)
    images = by_split.get("val") or next(iter(by_split.values()))
    if not len(images):
        raise UserError(f"--data {path}: holds no images")
    if images.targets.ndim != 1:
        raise UserError(f"--data {path}: images have several labels; give --no-labels to leave them out")
    positions = np.array(_positions(path, images.classes, classes), np.int64)
    return ComparedImages(images, positions[images.targets])


def _positions(path: Path, names: list[str], classes: Classes) -> list[int]:
    """Return the positions of a source's classes among those of the models."""
    hint = "give --no-labels to compare the models without them"
    if not classes.folders:
        if len(names) != classes.count:
            raise UserError(
                f"--data {path}: has {len(names)} classes, the models have {classes.count} without names; {hint}"
            )
        return list(range(len(names)))
    known = {name: position for position, name in enumerate(classes.folders)}
    if unknown := [name for name in names if name not in known]:
        raise UserError(f"--data {path}: the models have no class {unknown[0]}; {hint}")
    return [known[name] for name in names]
