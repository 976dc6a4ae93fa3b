"""Images of a split through PyTorch's DataLoader, wherever they lie."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import Dataset, Sampler, get_worker_info

from effnet.data.augmentations import AUGMENTATIONS, repeated
from effnet.data.batch import Batch, DataSource, Loader
from effnet.data.dataset_images import DatasetImages
from effnet.data.decode import BadImageError, Pixels, Readable, tell_decoder
from effnet.data.labels import SplitLabels, labels_of
from effnet.data.politeness import politely
from effnet.data.position import Indices, Position, TrainOrder, ValOrder
from effnet.data.prefetch import to_device
from effnet.data.request import DataRequest
from effnet.data.sizes import Sizes, training_sizes
from effnet.data.sources import SourceImages
from effnet.data.transforms import TrainTransform, ValTransform
from effnet.data.watched import WatchedLoader, reading
from effnet.runtime.errors import UserError

Transform = Callable[[Readable, int, int], Pixels]

REMEDY = "fix or remove it, or give --on-bad-image skip"
"""advice for a broken image"""


class Images(Protocol):
    """Images of a split in a fixed order, with random access; each worker gets a copy."""

    @property
    def targets(self) -> npt.NDArray[Any]:
        """int32 (N,), the position of each image's class in the class list, or uint8 (N, classes) with 1 for each label
        of an image that may have several.
        """

    @property
    def weights(self) -> npt.NDArray[np.float32] | None:
        """float32 (N,), how much each image counts in training; None where all count the same."""

    def __len__(self) -> int:
        """Images of the split."""

    def file(self, index: int) -> str:
        """Return the name of an image for messages: its file, or its shard and position."""

    def read(self, indices: Sequence[int]) -> Iterable[Callable[[], Readable]]:
        """Return for each of `indices` a function that opens it, or raises `BadImageError`."""


def open_loaders(request: DataRequest, images: Mapping[str, Images], classes: Sequence[str]) -> DataSource:
    """Return loaders of the splits in `images`, in place of the request's own."""
    tell_decoder()
    recipe, side = request.recipe, request.preprocessing.image_size
    sizes = training_sizes(recipe, side)
    loaders: dict[str, ImageLoader] = {}
    labels = labels_of(images)
    for split, of_split in images.items():
        transform: Transform
        if split == "train":
            form = AUGMENTATIONS[recipe.data.augmentation].pillow()
            augment = repeated(form, recipe.data.augmentation_strength)
            transform = TrainTransform(
                request.preprocessing, recipe.data, recipe.compute.seed, augment, sizes
            )
        else:
            transform = ValTransform(request.preprocessing)
        of_epoch = sizes if split == "train" else Sizes(side, side, 1)
        is_train = split == "train"
        work = _Work(of_split, labels[split], transform, of_epoch, recipe.data.on_bad_image, is_train)
        loaders[split] = ImageLoader(work, request.order(split, len(of_split), labels[split]), request)
    source = opened_source(request, classes, loaders, images)
    if "train" in images:
        source.each_once = partial(_each_once, request, images["train"], labels["train"])
    return source


def _each_once(request: DataRequest, images: Images, labels: SplitLabels, every: int) -> Iterator[Batch]:
    """Yield batches as `DataSource.each_once` describes them."""
    recipe, side = request.recipe, request.preprocessing.image_size
    transform = ValTransform(request.preprocessing)
    work = _Work(images, labels, transform, Sizes(side, side, 1), recipe.data.on_bad_image, False)
    size = recipe.optimizer.batch_size
    order = ValOrder(len(images), size, request.rank, request.world_size, every=every)
    loader = ImageLoader(work, order, request)
    yield from loader
    loader.close()


def opened_source(
    request: DataRequest,
    classes: Sequence[str],
    loaders: Mapping[str, Loader],
    images: Mapping[str, Images],
) -> DataSource:
    """Return the data source of the splits' loaders and images."""
    return DataSource(
        list(classes),
        loaders.get("train"),
        loaders.get("val"),
        files={split: of_split for split, of_split in images.items() if isinstance(of_split, SourceImages)},
        names={split: of_split.file for split, of_split in images.items()},
        path=request.path,
        labels=labels_of(images),
    )


class _Prepared(NamedTuple):
    """A batch as it comes from a worker."""

    pixels: torch.Tensor
    targets: torch.Tensor
    weights: torch.Tensor | None
    indices: torch.Tensor
    bad: list[BadImageError]


class _Work(Dataset[Any]):
    """Whole batches of images, prepared in a worker.

    A failure is returned as a value: raised, it would reach the training process as a traceback in a string.
    """

    def __init__(
        self,
        images: Images,
        labels: SplitLabels,
        transform: Transform,
        sizes: Sizes,
        on_bad_image: str,
        full: bool,
    ) -> None:
        self.images, self.labels, self.transform, self.sizes = images, labels, transform, sizes
        self.skip_bad = on_bad_image == "skip"
        self.full = full
        """keep a batch's size, by repeating an image in the place of a bad one"""

    def __getitems__(self, wanted: tuple[int, Indices]) -> _Prepared | BadImageError | UserError:
        try:
            with reading() as note:
                return self._prepared(*wanted, note)
        except (BadImageError, UserError) as error:
            return error

    def _prepared(self, epoch: int, indices: Indices, note: Callable[[int], None]) -> _Prepared:
        side = self.sizes.at(epoch)
        pixels = torch.empty((len(indices), side, side, 3), dtype=torch.uint8)
        if get_worker_info() is not None:
            pixels.share_memory_()  # written where the training process will read it
        rows, bad = pixels.numpy(), {}
        # A sampler's repetitions of an image differ in their augmentation alone.
        places, indices = indices.tolist(), indices % len(self.images)
        for row, (index, open_image) in enumerate(
            zip(indices.tolist(), self._read(epoch, indices.tolist()), strict=True)
        ):
            note(index)
            try:
                rows[row] = politely(partial(self._image, open_image, epoch, places[row]))
            except BadImageError as error:
                if not self.skip_bad:
                    raise
                bad[row] = error
        if bad:
            good = [row for row in range(len(indices)) if row not in bad]
            if self.full and not good:
                raise BadImageError(bad[0].name, f"{bad[0].reason}; nor can any other image of its batch")
            kept = filled(len(indices), good) if self.full else np.array(good, dtype=np.int64)
            pixels, indices = pixels[torch.from_numpy(kept)], indices[kept]
        targets, weights = self.labels.batch(indices)
        return _Prepared(pixels, targets, weights, torch.from_numpy(indices.copy()), list(bad.values()))

    def _image(self, open_image: Callable[[], Readable], epoch: int, place: int) -> Pixels:
        return self.transform(open_image(), epoch, place)

    def _read(self, epoch: int, indices: list[int]) -> Iterable[Callable[[], Readable]]:
        if isinstance(self.images, DatasetImages):  # which may be random themselves
            return self.images.read(indices, epoch if self.full else 0)
        return self.images.read(indices)


def filled(size: int, good: list[int]) -> Indices:
    """The rows of a batch, where in the place of each bad one stands a good one, all of them in turn."""
    rows = np.arange(size)
    bad = np.setdiff1d(rows, good)
    rows[bad] = np.resize(good, len(bad))
    return rows


class _Batches(Sampler[Any]):
    """The batches that the workers prepare, each with its epoch, since the workers stay for the next one."""

    def __init__(self, order: TrainOrder | ValOrder) -> None:
        self.order, self.epoch, self.step = order, 0, 0

    def __len__(self) -> int:
        return len(self.order)

    def __iter__(self) -> Iterator[tuple[int, Indices]]:
        for indices in self.order.batches(self.epoch, self.step):
            yield self.epoch, indices


class ImageLoader(Position):
    """A `Loader` of images; its workers start with the first iteration and stay."""

    def __init__(self, work: _Work, order: TrainOrder | ValOrder, request: DataRequest) -> None:
        recipe, device, workers = request.recipe, request.device, request.workers
        self.num_images, self.batch_size = len(work.images), recipe.optimizer.batch_size
        self.bad_images: dict[str, str] = {}
        self._device, self._contiguous = device, recipe.compute.memory_format == "nchw"
        self._batches = _Batches(order)
        self._workers = WatchedLoader(
            work,
            workers=workers,
            polite=device.type == "cpu",
            timeout=recipe.data.data_timeout,
            name_of=work.images.file,
            batch_sampler=self._batches,
            prefetch_factor=recipe.data.prefetch if workers else None,
            persistent_workers=workers > 0,
            pin_memory=device.type == "cuda",
        )

    def __len__(self) -> int:
        return len(self._batches)

    def close(self) -> None:
        """End the workers."""
        self._workers.stop()

    def __iter__(self) -> Iterator[Batch]:
        """The rest of the present epoch.

        Raises:
            UserError: an image that can't be decoded, unless the recipe says to leave it out; it is named.
        """
        self._batches.epoch, self._batches.step = self.epoch, self.step
        for batch in to_device(self._read(), self._device):
            if self._contiguous:
                batch.images = batch.images.contiguous()
            self.step += 1
            if len(batch.targets):  # else all its images are bad
                yield batch
        self._next_epoch()

    def _read(self) -> Iterator[Batch]:
        failure = None
        for read in self._workers:
            if isinstance(read, BadImageError | UserError):
                failure = read
                break
            pixels, targets, weights, indices, bad = read
            self.bad_images |= {error.name: error.reason for error in bad}
            yield Batch(pixels.permute(0, 3, 1, 2), targets, indices, weights)
        if failure is not None:
            self._workers.stop()
            if isinstance(failure, BadImageError):
                failure = UserError(f"{failure}; {REMEDY}")
            raise failure
