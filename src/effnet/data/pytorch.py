"""Folders of images through PyTorch's DataLoader."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, Sampler, get_worker_info

from effnet.data.batch import Batch, DataSource
from effnet.data.decode import BadImageError, EncodedImage, Pixels
from effnet.data.folder import ImageFolder, list_images, read_classes
from effnet.data.position import Indices, Position, TrainOrder, ValOrder
from effnet.data.prefetch import to_device
from effnet.data.preprocessing import Preprocessing
from effnet.data.transforms import TrainTransform, ValTransform, augmentation
from effnet.data.workers import worker_count
from effnet.errors import UserError
from effnet.recipe import Recipe

Transform = Callable[[EncodedImage, int, int], Pixels]


def open_pytorch(
    recipe: Recipe,
    path: Path,
    preprocessing: Preprocessing,
    device: torch.device,
    *,
    rank: int,
    world_size: int,
    splits: Sequence[str],
    classes: Sequence[str] | None,
) -> DataSource:
    """Open ``path/train`` and ``path/val``; see `effnet.data.open_data`."""
    if classes is None:
        train_absent = "train" not in splits and path.is_dir() and not (path / "train").is_dir()
        classes = read_classes(path, "val" if train_absent else "train")
    loaders: dict[str, FolderLoader] = {}
    for split in splits:
        images = list_images(path, split, classes)
        batch_size = recipe.optimizer.batch_size
        transform: Transform
        order: TrainOrder | ValOrder
        if split == "train":
            order = TrainOrder(len(images), batch_size, recipe.compute.seed, rank, world_size)
            augment = augmentation(recipe.data.augmentation)
            transform = TrainTransform(preprocessing, recipe.data, recipe.compute.seed, augment)
        else:
            order = ValOrder(len(images), batch_size, rank, world_size)
            transform = ValTransform(preprocessing)
        data = _Images(images, transform, preprocessing.image_size)
        loaders[split] = FolderLoader(
            data, order, recipe, device, worker_count(recipe.data.workers, world_size)
        )
    return DataSource(list(classes), loaders.get("train"), loaders.get("val"))


class _Images(Dataset[Any]):
    """Whole batches of images, prepared in a worker.

    A failure is returned as a value: raised, it would reach the training process as a traceback in a string.
    """

    def __init__(self, images: ImageFolder, transform: Transform, side: int) -> None:
        self.images, self.transform, self.side = images, transform, side

    def __getitems__(self, wanted: tuple[int, Indices]) -> tuple[torch.Tensor, ...] | BadImageError:
        epoch, indices = wanted
        pixels = torch.empty((len(indices), self.side, self.side, 3), dtype=torch.uint8)
        if get_worker_info() is not None:
            pixels.share_memory_()  # written where the training process will read it
        rows = pixels.numpy()
        try:
            for row, index in zip(rows, indices.tolist(), strict=True):
                row[:] = self.transform(EncodedImage(self.images.path(index)), epoch, index)
        except BadImageError as error:
            return error
        targets = torch.from_numpy(self.images.targets[indices].astype("int64"))
        return pixels, targets, torch.from_numpy(indices.copy())


class _Batches(Sampler[Any]):
    """What the workers are to prepare: the epoch goes along, since they outlive it."""

    def __init__(self, order: TrainOrder | ValOrder) -> None:
        self.order, self.epoch, self.step = order, 0, 0

    def __len__(self) -> int:
        return len(self.order)

    def __iter__(self) -> Iterator[tuple[int, Indices]]:
        for indices in self.order.batches(self.epoch, self.step):
            yield self.epoch, indices


class FolderLoader(Position):
    """A `Loader` over a folder; its workers start with the first iteration and stay."""

    def __init__(
        self, data: _Images, order: TrainOrder | ValOrder, recipe: Recipe, device: torch.device, workers: int
    ) -> None:
        self.num_images, self.batch_size = len(data.images), recipe.optimizer.batch_size
        self._device, self._contiguous = device, recipe.compute.memory_format == "nchw"
        self._batches = _Batches(order)
        self._open_workers = partial(
            DataLoader,
            data,
            batch_sampler=self._batches,
            collate_fn=_as_it_is,
            num_workers=workers,
            prefetch_factor=recipe.data.prefetch if workers else None,
            persistent_workers=workers > 0,
            pin_memory=device.type == "cuda",
            generator=torch.Generator(),  # else each epoch draws a seed from the training process's generator
        )
        self._workers = self._open_workers()

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[Batch]:
        """The rest of the present epoch.

        Raises:
            UserError: an image that can't be decoded; the file is named.
        """
        self._batches.epoch, self._batches.step = self.epoch, self.step
        for batch in to_device(self._read(), self._device):
            if self._contiguous:
                batch.images = batch.images.contiguous()
            self.step += 1
            yield batch
        self._next_epoch()

    def _read(self) -> Iterator[Batch]:
        failure = None
        for read in self._workers:
            if isinstance(read, BadImageError):
                failure = read
                break
            pixels, targets, indices = read
            yield Batch(pixels.permute(0, 3, 1, 2), targets, indices)
        if failure is not None:
            # ends the workers now; the garbage collector would close their queues first and wait 5 s for each
            self._workers = self._open_workers()
            raise UserError(str(failure))


def _as_it_is(read: Any) -> Any:
    return read
