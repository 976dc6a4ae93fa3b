"""The images to calibrate on: a fixed, evenly spaced choice from a folder, prepared as for validation."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt

from effnet.data import BACKENDS, Batch, DataPlace, DataRequest, open_data
from effnet.data.decode import Readable
from effnet.data.image_files import Targets
from effnet.data.loader import open_loaders
from effnet.data.sources import SourceImages, open_all, open_splits
from effnet.data.sources.folder import has_splits
from effnet.recipe import ResolvedRecipe
from effnet.runtime.errors import UserError
from effnet.training.setup import Opened


class Spread:
    """A number of images of a folder, evenly spaced in its order by class and name.

    Args:
        images: of a folder or another source.
        count: number of images; at most all are taken.
    """

    def __init__(self, images: SourceImages, count: int) -> None:
        self._images = images
        self._indices = np.arange(min(count, len(images))) * len(images) // min(count, len(images))

    @property
    def targets(self) -> Targets:
        """See `effnet.data.loader.Images`."""
        return self._images.targets[self._indices]

    @property
    def weights(self) -> npt.NDArray[np.float32] | None:
        """See `effnet.data.loader.Images`."""
        return None

    def __len__(self) -> int:
        return len(self._indices)

    def file(self, index: int) -> str:
        """See `effnet.data.loader.Images`."""
        return self._images.file(int(self._indices[index]))

    def read(self, indices: Sequence[int]) -> Iterable[Callable[[], Readable]]:
        """See `effnet.data.loader.Images`."""
        return self._images.read([int(self._indices[index]) for index in indices])


def calibration_batches(recipe: ResolvedRecipe, path: DataPlace | None, opened: Opened) -> Iterator[Batch]:
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
    if settings.calib_data is None and not BACKENDS[recipe.data.data_backend].reads_sources:
        loader = open_data(request).train
    else:
        images = _images(recipe, path or Path(), opened)
        wanted = settings.calib_batches * recipe.optimizer.batch_size * processes.world_size
        loader = open_loaders(request, {"val": Spread(images, wanted)}, images.classes).val
    assert loader is not None
    return islice(iter(loader), settings.calib_batches)


def _images(recipe: ResolvedRecipe, path: DataPlace, opened: Opened) -> SourceImages:
    """Return the images to choose from: those of ``--calib-data``, else the run's for training.

    Raises:
        UserError: there are none.
    """
    given = recipe.quantization.calib_data
    if given is not None:
        if not Path(given).exists():
            raise UserError(
                f"{given}: no such folder to calibrate on; name one with class folders by --calib-data"
            )
        return open_all(given, recipe.replace({"source": "auto"}))
    if isinstance(path, Path) and has_splits(path) and not (path / "train").is_dir():
        raise UserError(
            f"{path / 'train'}: no such folder to calibrate on; name one with class folders by --calib-data"
        )
    stored = opened.data.made_split
    return open_splits(recipe, path, ("train",), opened.data.classes, stored=stored).images["train"]
