"""Images from a folder to batches on the device. A new backend is an opener and a row in `BACKENDS`."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from effnet.data.batch import Batch, DataSource, Loader
from effnet.data.folder import read_classes, split_classes
from effnet.data.mixup import Mix, epoch_mixes, mixup
from effnet.data.packed import is_packed, open_packed, packed_classes
from effnet.data.preprocessing import Preprocessing
from effnet.data.pytorch import open_pytorch
from effnet.data.request import DataRequest
from effnet.data.sample import prepare_sample
from effnet.data.synthetic import NUM_CLASSES, open_synthetic
from effnet.recipe import Recipe

__all__ = [
    "BACKENDS",
    "Batch",
    "DataRequest",
    "DataSource",
    "Loader",
    "Mix",
    "Preprocessing",
    "epoch_mixes",
    "find_classes",
    "mixup",
    "open_data",
    "prepare_sample",
    "read_classes",
]


def _open_dali(decoder: Any, request: DataRequest) -> DataSource:
    from effnet.data.dali import open_dali  # optional, and slow to import

    return open_dali(decoder, request)


BACKENDS: dict[str, Callable[[DataRequest], DataSource]] = {
    "pytorch": open_pytorch,
    "dali-cpu": partial(_open_dali, "cpu"),
    "dali-gpu": partial(_open_dali, "mixed"),
    "packed": open_packed,
    "synthetic": open_synthetic,
}


def open_data(request: DataRequest) -> DataSource:
    """Open a data set with the recipe's backend, for one process of a run.

    Training batches are shuffled and augmented, and an incomplete global batch at an epoch's end is dropped;
    validation gives every image exactly once over all processes.

    Raises:
        UserError: a folder that is missing or empty, a packed set that can't be reached or is damaged, a class of
            ``val/`` that ``train/`` lacks, or fewer training images than a global batch has. Iterating raises it
            for an image that can't be decoded.
    """
    return BACKENDS[request.recipe.data.data_backend](request)


def find_classes(recipe: Recipe, path: Path | str, splits: Sequence[str] = ("train", "val")) -> list[str]:
    """Class names as `open_data` would give them, without opening the images; the arguments are those of `DataRequest`.

    Raises:
        UserError: there are none to be found.
    """
    if recipe.data.data_backend == "synthetic":
        return [str(target) for target in range(recipe.model.num_classes or NUM_CLASSES)]
    if recipe.data.data_backend == "packed" or is_packed(path, splits[0]):
        return packed_classes(path, splits)
    return split_classes(Path(path), splits)
