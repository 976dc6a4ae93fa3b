"""The images to calibrate on: a fixed, evenly spaced choice from a folder, prepared as for validation."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt

from effnet.data import BACKENDS, Batch, DataRequest, open_data
from effnet.data.decode import Readable
from effnet.data.folder import ImageFolder, list_images
from effnet.data.loader import open_loaders
from effnet.recipe import ResolvedRecipe
from effnet.runtime.errors import UserError
from effnet.training.setup import Opened


class Spread:
    """A number of images of a folder, evenly spaced in its order by class and name.

    Args:
        images: the folder.
        count: number of images; at most all are taken.
    """

    def __init__(self, images: ImageFolder, count: int) -> None:
        self._images = images
        self._indices = np.arange(min(count, len(images))) * len(images) // min(count, len(images))

    @property
    def targets(self) -> npt.NDArray[np.int32]:
        """(N,) position of each image's class."""
        return self._images.targets[self._indices]

    def __len__(self) -> int:
        return len(self._indices)

    def file(self, index: int) -> str:
        """See `effnet.data.loader.Images`."""
        return self._images.file(int(self._indices[index]))

    def read(self, indices: Sequence[int]) -> Iterable[Callable[[], Readable]]:
        """See `effnet.data.loader.Images`."""
        return self._images.read([int(self._indices[index]) for index in indices])


def calibration_batches(recipe: ResolvedRecipe, path: Path | None, opened: Opened) -> Iterator[Batch]:
    """Return this process's batches to calibrate on.

    Args:
        recipe: settings of the run; its `quantization` says how many batches, and the folder if not ``path/train``.
        path: the run's folder of images.
        opened: the run.

    Raises:
        UserError: a folder that is missing or empty.
    """
    settings = recipe.quantization
    processes = opened.processes
    place = processes.device, processes.rank, processes.world_size
    # Packed and synthetic sets are read as for training; of what is random, only the crop and the flip remain.
    plain = recipe.replace({"augmentation": "none", "mixup": 0.0, "cutmix": 0.0, "random_erasing": 0.0})
    request = DataRequest(
        plain, path or Path(), opened.preprocessing, *place, ("train",), opened.data.classes
    )
    if settings.calib_data is None and not BACKENDS[recipe.data.data_backend].reads_folders:
        loader = open_data(request).train
    else:
        folder = Path(settings.calib_data) if settings.calib_data is not None else (path or Path()) / "train"
        if not folder.is_dir():
            raise UserError(
                f"{folder}: no such folder to calibrate on; name one with class folders by --calib-data"
            )
        folder = folder.resolve()
        images = list_images(folder.parent, folder.name, max_pixels=recipe.data.max_pixels)
        wanted = settings.calib_batches * recipe.optimizer.batch_size * processes.world_size
        loader = open_loaders(request, {"val": Spread(images, wanted)}, images.classes).val
    assert loader is not None
    return islice(iter(loader), settings.calib_batches)
