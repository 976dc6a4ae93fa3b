"""Random images on the device: the speed of training without the cost of input."""

from collections.abc import Iterator, Sequence

import torch

from effnet.data.backends.form import Backend
from effnet.data.batch import Batch, DataSource
from effnet.data.places import DataPlace
from effnet.data.position import Position, TrainOrder, ValOrder
from effnet.data.request import DataRequest
from effnet.data.sources import Labels
from effnet.recipe import Recipe

NUM_IMAGES = {"train": 1_281_167, "val": 50_000}  # as many as ImageNet has
NUM_CLASSES = 1000


def open_synthetic(request: DataRequest) -> DataSource:
    """Make random images in place of ImageNet's; the path is not read. See `effnet.data.open_data`."""
    classes = request.classes
    if classes is None:
        classes = [str(target) for target in range(request.recipe.model.num_classes)]
    loaders = {}
    for split in request.splits:
        order = request.order(split, NUM_IMAGES[split])
        batch = _random_batch(request, len(classes))
        loaders[split] = SyntheticLoader(batch, order, NUM_IMAGES[split])
    return DataSource(list(classes), loaders.get("train"), loaders.get("val"))


class SyntheticLoader(Position):
    """A `Loader` that returns the same batch in every step; the last one of validation is cut to what is left."""

    def __init__(self, batch: Batch, order: TrainOrder | ValOrder, num_images: int) -> None:
        self.num_images, self.batch_size = num_images, len(batch.targets)
        self.bad_images: dict[str, str] = {}
        self._batch, self._steps = batch, len(order)
        self._last = (
            len(order.mine) - (len(order) - 1) * self.batch_size if isinstance(order, ValOrder) else None
        )

    def __len__(self) -> int:
        return self._steps

    def __iter__(self) -> Iterator[Batch]:
        """Yield the rest of the current epoch."""
        batch = self._batch
        while self.step < self._steps:
            self.step += 1
            end = self._last if self.step == self._steps else None
            yield Batch(batch.images[:end], batch.targets[:end])
        self._next_epoch()


def _random_batch(request: DataRequest, num_classes: int) -> Batch:
    recipe, side, device = request.recipe, request.preprocessing.image_size, request.device
    random = torch.Generator(device).manual_seed(recipe.compute.seed)
    size = recipe.optimizer.batch_size
    images = torch.randint(256, (size, side, side, 3), dtype=torch.uint8, device=device, generator=random)
    images = images.permute(0, 3, 1, 2)
    if recipe.compute.memory_format == "nchw":
        images = images.contiguous()
    return Batch(images, torch.randint(num_classes, (size,), device=device, generator=random))


def _find_labels(recipe: Recipe, path: DataPlace | str, splits: Sequence[str]) -> Labels:
    return Labels([str(target) for target in range(recipe.model.num_classes or NUM_CLASSES)])


BACKEND = Backend(
    "synthetic",
    "Random images that lie on the device; no folder is read",
    open_synthetic,
    find_labels=_find_labels,
    reads_sources=False,
    reads_path=False,
)
