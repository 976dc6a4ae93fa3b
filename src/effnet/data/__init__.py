"""Images from a folder to batches on the device."""

from collections.abc import Sequence

from effnet.data.backends import BACKENDS
from effnet.data.backends.form import Backend
from effnet.data.batch import Batch, DataSource, Loader
from effnet.data.folder import read_classes
from effnet.data.mixup import Mix, epoch_mixes, mixup
from effnet.data.places import DataPlace, Datasets
from effnet.data.preprocessing import Preprocessing
from effnet.data.request import DataRequest
from effnet.data.sample import prepare_sample
from effnet.data.sources import Labels, open_all, open_splits
from effnet.recipe import Recipe, ResolvedRecipe
from effnet.runtime.errors import UserError

__all__ = [
    "BACKENDS",
    "Batch",
    "DataPlace",
    "DataRequest",
    "DataSource",
    "Datasets",
    "Labels",
    "Loader",
    "Mix",
    "Preprocessing",
    "epoch_mixes",
    "find_classes",
    "find_labels",
    "mixup",
    "open_all",
    "open_data",
    "open_splits",
    "prepare_sample",
    "read_classes",
]


def open_data(request: DataRequest) -> DataSource:
    """Open a data set with the recipe's backend, for one process of a run.

    Training batches are shuffled and augmented, and an incomplete global batch at an epoch's end is dropped;
    validation returns every image exactly once over all processes.

    Raises:
        UserError: a folder that is missing or empty, a packed set that can't be reached or is damaged, a class of
            ``val/`` that ``train/`` lacks, or fewer training images than a global batch has. Iterating raises it
            for an image that can't be decoded.
    """
    backend = _backend(request.recipe, request.path)
    if (
        request.recipe.data.progressive_sizes is not None
        and not backend.resizes
        and "train" in request.splits
    ):
        raise UserError(
            f"--progressive-sizes needs --data-backend pytorch or packed; {backend.name} has images of one size"
        )
    return backend.open(request)


def find_classes(
    recipe: Recipe, path: DataPlace | str, splits: Sequence[str] = ("train", "val")
) -> list[str]:
    """Return the class names that `open_data` would find, without opening the images.

    Args:
        recipe: settings.
        path: as in `DataRequest`.
        splits: as in `DataRequest`.

    Raises:
        UserError: there are none to be found.
    """
    return find_labels(recipe, path, splits).classes


def find_labels(recipe: Recipe, path: DataPlace | str, splits: Sequence[str] = ("train", "val")) -> Labels:
    """Return the class names as `find_classes` does, and whether an image may have several of them."""
    return _backend(recipe, path).find_labels(recipe, path, splits)


def _backend(recipe: Recipe | ResolvedRecipe, path: DataPlace | str) -> Backend:
    backend = BACKENDS[recipe.data.data_backend]
    if isinstance(path, Datasets) and not backend.reads_datasets:
        raise UserError(f"--data-backend {backend.name} reads no PyTorch Dataset ({path}); take pytorch")
    return backend
