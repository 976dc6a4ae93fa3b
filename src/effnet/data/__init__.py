"""Images from a folder to batches on the device. A new backend is an opener and a row in `BACKENDS`."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch

from effnet.data.batch import Batch, DataSource, Loader
from effnet.data.folder import read_classes, split_classes
from effnet.data.mixup import mixup, mixup_weight
from effnet.data.packed import is_packed, open_packed, packed_classes
from effnet.data.preprocessing import Preprocessing
from effnet.data.pytorch import open_pytorch
from effnet.data.sample import prepare_sample
from effnet.data.synthetic import NUM_CLASSES, open_synthetic
from effnet.recipe import Recipe

__all__ = [
    "BACKENDS",
    "Batch",
    "DataSource",
    "Loader",
    "Preprocessing",
    "find_classes",
    "mixup",
    "mixup_weight",
    "open_data",
    "prepare_sample",
    "read_classes",
]


class Opener(Protocol):
    """What a backend has to offer; the arguments are those of `open_data`."""

    def __call__(
        self,
        recipe: Recipe,
        path: Path,
        preprocessing: Preprocessing,
        device: torch.device,
        *,
        rank: int,
        world_size: int,
        splits: Sequence[str],
        classes: Sequence[str] | None,
    ) -> DataSource: ...


def _open_dali(decoder: Any, *args: Any, **options: Any) -> DataSource:
    from effnet.data.dali import open_dali  # optional, and slow to import

    return open_dali(decoder, *args, **options)


BACKENDS: dict[str, Opener] = {
    "pytorch": open_pytorch,
    "dali-cpu": partial(_open_dali, "cpu"),
    "dali-gpu": partial(_open_dali, "mixed"),
    "packed": open_packed,
    "synthetic": open_synthetic,
}


def open_data(
    recipe: Recipe,
    path: Path | str,
    preprocessing: Preprocessing,
    device: torch.device,
    *,
    rank: int = 0,
    world_size: int = 1,
    splits: Sequence[str] = ("train", "val"),
    classes: Sequence[str] | None = None,
) -> DataSource:
    """Open a data set with the recipe's backend, for one process of a run.

    Training batches are shuffled and augmented, and an incomplete global batch at an epoch's end is dropped;
    validation gives every image exactly once over all processes.

    Args:
        path: folder with ``train/<class>/<image>`` and ``val/<class>/<image>``; for ``packed``, and for DALI if you
            like, what `effnet prepare pack` wrote, a folder or a URL; ignored by ``synthetic``.
        preprocessing: size and interpolation of the images; normalising them is left to the consumer.
        device: where batches are to lie.
        rank, world_size: this process among those of the run.
        splits: which of ``train`` and ``val`` to open.
        classes: class names in the order of the targets that the model was trained with; a folder of another
            class is an error [default: the folders of ``train/``, or those of ``val/`` where only that is
            opened and there is no ``train/``].

    Raises:
        UserError: a folder that is missing or empty, a packed set that can't be reached or is damaged, a class of
            ``val/`` that ``train/`` lacks, or fewer training images than a global batch has. Iterating raises it
            for an image that can't be decoded.
    """
    backend = BACKENDS[recipe.data.data_backend]
    return backend(
        recipe,
        Path(path),
        preprocessing,
        device,
        rank=rank,
        world_size=world_size,
        splits=splits,
        classes=classes,
    )


def find_classes(recipe: Recipe, path: Path | str, splits: Sequence[str] = ("train", "val")) -> list[str]:
    """Class names as `open_data` would give them, without opening the images; the arguments are its own.

    Raises:
        UserError: there are none to be found.
    """
    if recipe.data.data_backend == "synthetic":
        return [str(target) for target in range(recipe.model.num_classes or NUM_CLASSES)]
    if recipe.data.data_backend == "packed" or is_packed(path, splits[0]):
        return packed_classes(path, splits)
    return split_classes(Path(path), splits)
