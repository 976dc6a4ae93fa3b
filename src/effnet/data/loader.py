"""Images of a split, wherever they lie, through PyTorch's DataLoader or by threads in turns with the training."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from torch.utils.data import Sampler

from effnet.data import baseline_jpeg
from effnet.data.augmentations import AUGMENTATIONS, repeated
from effnet.data.batch import Batch, DataSource, Loader
from effnet.data.decode import BadImageError, tell_decoder
from effnet.data.labels import SplitLabels, labels_of
from effnet.data.position import Indices, Position, TrainOrder, ValOrder
from effnet.data.prefetch import to_device
from effnet.data.request import DataRequest
from effnet.data.sizes import Sizes, training_sizes
from effnet.data.sources import SourceImages
from effnet.data.transforms import TrainTransform, ValTransform
from effnet.data.turns import TurnsLoader, computes_on_all_cores
from effnet.data.watched import WatchedLoader
from effnet.data.work import BatchWork, Images, Transform
from effnet.runtime.errors import UserError

REMEDY = "fix or remove it, or give --on-bad-image skip"
"""advice for a broken image"""


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
            baseline_jpeg.is_available()  # compiled now, not by each worker that crops an image
            form = AUGMENTATIONS[recipe.data.augmentation].pixels()
            augment = repeated(form, recipe.data.augmentation_strength)
            transform = TrainTransform(
                request.preprocessing, recipe.data, recipe.compute.seed, augment, sizes
            )
        else:
            transform = ValTransform(request.preprocessing)
        of_epoch = sizes if split == "train" else Sizes(side, side, 1)
        is_train = split == "train"
        work = BatchWork(of_split, labels[split], transform, of_epoch, recipe.data.on_bad_image, is_train)
        loaders[split] = ImageLoader(work, request.order(split, len(of_split), labels[split]), request)
    source = opened_source(request, classes, loaders, images)
    if "train" in images:
        source.each_once = partial(_each_once, request, images["train"], labels["train"])
    return source


def _each_once(request: DataRequest, images: Images, labels: SplitLabels, every: int) -> Iterator[Batch]:
    """Yield batches as `DataSource.each_once` describes them."""
    recipe, side = request.recipe, request.preprocessing.image_size
    transform = ValTransform(request.preprocessing)
    work = BatchWork(images, labels, transform, Sizes(side, side, 1), recipe.data.on_bad_image, False)
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


class _Batches(Sampler[Any]):
    """The batches that the workers prepare, each with its epoch, since the workers stay for the next one."""

    def __init__(self, order: TrainOrder | ValOrder) -> None:
        self.order, self.epoch, self.step = order, 0, 0

    def __len__(self) -> int:
        return len(self.order)

    def __iter__(self) -> Iterator[tuple[int, Indices]]:
        for indices in self.order.batches(self.epoch, self.step):
            yield self.epoch, indices


def _workers(work: BatchWork, batches: _Batches, request: DataRequest) -> WatchedLoader | TurnsLoader:
    """Return what prepares the batches: threads or processes."""
    data, workers = request.recipe.data, request.workers
    # Other images may hold the interpreter's lock, come over a network, or draw from the process's generators.
    if workers and isinstance(work.images, SourceImages) and computes_on_all_cores(request):
        return TurnsLoader(
            work,
            batches,
            threads=workers,
            ahead=workers * data.prefetch,
            timeout=data.data_timeout,
            name_of=work.images.file,
        )
    return WatchedLoader(
        work,
        workers=workers,
        polite=request.device.type == "cpu",
        timeout=data.data_timeout,
        name_of=work.images.file,
        batch_sampler=batches,
        prefetch_factor=data.prefetch if workers else None,
        persistent_workers=workers > 0,
        pin_memory=request.device.type == "cuda",
    )


class ImageLoader(Position):
    """A `Loader` of images; its workers start with the first iteration and stay."""

    def __init__(self, work: BatchWork, order: TrainOrder | ValOrder, request: DataRequest) -> None:
        recipe = request.recipe
        self.num_images, self.batch_size = len(work.images), recipe.optimizer.batch_size
        self.bad_images: dict[str, str] = {}
        self._device, self._contiguous = request.device, recipe.compute.memory_format == "nchw"
        self._batches = _Batches(order)
        self._workers = _workers(work, self._batches, request)

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
