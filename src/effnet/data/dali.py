"""Folders of images through NVIDIA DALI: its decoders, resampling and automatic augmentations.

What is random about an image is drawn in Python, from where it stands in the run (see
`effnet.data.randomness`). So an epoch's order, crops and flips are those of the ``pytorch`` backend for any number
of threads and processes and after a resume, which DALI's readers and random operators, each with a state of its
own, can't give. An image costs Python some 60 us, of its 2 ms; decoding and all after it run in DALI's threads.

Automatic augmentation is DALI's. AutoAugment is the policy it calls ``reduced_image_net``, whose rows are those
of arXiv 1805.09501 and of torchvision; what a magnitude means differs from torchvision's in posterize, solarize
and color.

Pipelines for a CUDA device have been written against the documentation and have not run on a GPU yet.
"""

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch

from effnet.data.batch import Batch, DataSource
from effnet.data.decode import EncodedImage, Readable
from effnet.data.feed import Array, Feed
from effnet.data.files import open_files
from effnet.data.folder import list_images, split_classes
from effnet.data.loader import REMEDY, Images, filled, folders_of
from effnet.data.packed import PackedImages, is_packed, packed_classes
from effnet.data.position import Indices, Position, TrainOrder, ValOrder
from effnet.data.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocessing
from effnet.data.randomness import Stream, generator
from effnet.data.request import DataRequest
from effnet.data.transforms import crop_box
from effnet.errors import UserError
from effnet.recipe import DataSettings

try:
    from nvidia.dali import fn, pipeline_def, types
    from nvidia.dali.auto_aug import augmentations, auto_augment, rand_augment, trivial_augment
    from nvidia.dali.auto_aug.core import signed_bin
    from nvidia.dali.plugin.pytorch import DALIClassificationIterator, LastBatchPolicy
except ImportError:
    raise UserError("--data-backend dali-cpu and dali-gpu need DALI: pip install 'effnet[dali]'") from None

Decoder = Literal["cpu", "mixed"]
"""where DALI decodes: on the CPU, or on the GPU with its JPEG hardware if it has any"""

_INTERPOLATIONS = {
    "nearest": types.INTERP_NN,
    "bilinear": types.INTERP_LINEAR,
    "bicubic": types.INTERP_CUBIC,
}
# The largest of ImageNet's images: memory for the hardware decoder that need not grow as they come.
_LARGEST = {"preallocate_height_hint": 6430, "preallocate_width_hint": 5980}
_FILL = 128  # mid-grey where an operation has moved the image away, as in `effnet.data.transforms`


def open_dali(decoder: Decoder, request: DataRequest) -> DataSource:
    """Open ``path/train`` and ``path/val``, folders of images or packed; see `effnet.data.open_data`.

    Args:
        decoder: ``cpu`` prepares images on the CPU and copies the result to the device; ``mixed`` decodes and
            prepares them on the GPU.
        request: what to open.

    Raises:
        UserError: also for ``mixed`` where the device is no GPU.
    """
    if decoder == "mixed" and request.device.type != "cuda":
        raise UserError("--data-backend dali-gpu needs a GPU; take dali-cpu")
    path, splits, classes = request.path, request.splits, request.classes
    if classes is None:
        packed = is_packed(path, splits[0])
        classes = packed_classes(path, splits) if packed else split_classes(path, splits)
    stages = _Stages(decoder, request.preprocessing)
    settings, seed = request.recipe.data, request.recipe.compute.seed
    opened = {split: _open_images(path, split, classes) for split in splits}
    loaders: dict[str, DaliLoader] = {}
    for split, images in opened.items():
        transform: _Transform
        if split == "train":
            augment = _AUGMENTATIONS[settings.augmentation](request.preprocessing.image_size)
            transform = _TrainTransform(stages, settings, seed, augment)
        else:
            transform = _ValTransform(stages)
        loaders[split] = DaliLoader(images, request.order(split, len(images)), transform, request)
    return DataSource(list(classes), loaders.get("train"), loaders.get("val"), folders_of(opened))


# batches that a pipeline works on beside those that wait to be taken: one going in, one coming out
_HELD_BESIDE_PREFETCH = 2


class DaliLoader(Position):
    """A `Loader` over a folder; its pipeline and threads start with the first iteration and stay.

    A file that DALI can't decode ends its pipeline. The batch's files are then tried one by one: what Pillow
    decodes enters a new pipeline as pixels, then and in later epochs. A broken image ends the run or is left out,
    as in the ``pytorch`` backend. (A training crop above the damage shows none: decoding stops where the crop does.)
    """

    def __init__(
        self,
        images: Images,
        order: TrainOrder | ValOrder,
        transform: "_Transform",
        request: DataRequest,
    ) -> None:
        recipe, device, threads = request.recipe, request.device, max(1, request.workers)
        self.num_images, self.batch_size = len(images), recipe.optimizer.batch_size
        self.bad_images: dict[str, str] = {}
        self._skip_bad = recipe.data.on_bad_image == "skip"
        self._images, self._order, self._device = images, order, device
        self._contiguous = recipe.compute.memory_format == "nchw"
        self._feed = Feed(
            images, order, transform.draw, threads=threads, lent=recipe.data.prefetch + _HELD_BESIDE_PREFETCH
        )
        self._define = partial(
            _prepared,
            transform=transform,
            to_gpu=device.type == "cuda",
            batch_size=self.batch_size,
            num_threads=threads,
            device_id=_device_id(device),
            prefetch_queue_depth=recipe.data.prefetch,
        )
        self._pipeline: Any = None
        self._reached = 0, 0  # epoch and step of the pipeline's next batch

    def __len__(self) -> int:
        return len(self._order)

    def __iter__(self) -> Iterator[Batch]:
        """The rest of the present epoch.

        Raises:
            UserError: an image that can't be decoded; the file is named.
        """
        while self.step < len(self):
            yield from self._until_failure()
        self._next_epoch()

    def _until_failure(self) -> Iterator[Batch]:
        """Batches to the epoch's end, or to one with a file that DALI can't decode."""
        if self._pipeline is None or self._reached != (self.epoch, self.step):
            # DALI warns, past any filter, of its own policies' use of what it deprecated
            with warnings.catch_warnings(record=True):
                self._pipeline = self._define(self._feed.batches(self.epoch, self.step))
                self._pipeline.build()
        for indices in self._order.batches(self.epoch, self.step):
            try:
                images = self._next_images()
            except UserError:
                raise
            except Exception as error:  # of many kinds, and the pipeline is of no use any more
                self._pipeline = None
                self._find_unreadable(indices, error)
                return
            kept = self._kept(indices)
            self.step += 1
            last = self.step == len(self)
            self._reached = (self.epoch + 1, 0) if last else (self.epoch, self.step)
            if kept is not None:
                images, indices = images[torch.from_numpy(kept)], indices[kept]
            if len(indices):  # else all its images are broken
                yield self._batch(images, indices)

    def _next_images(self) -> torch.Tensor:
        """(N, H, W, 3) on the device, without a copy: DALI keeps the memory until the tensor is gone."""
        cuda = self._device.type == "cuda"
        (images,) = self._pipeline.run(torch.cuda.current_stream(self._device) if cuda else None)
        return torch.from_dlpack(images.as_tensor())

    def _kept(self, indices: Indices) -> Indices | None:
        """Rows of a batch to hand out, None for all.

        They are those of images that are not broken; training repeats others in their place.

        Raises:
            UserError: there is no other, or broken ones are not to be left out.
        """
        bad = [self._feed.bad[index] for index in indices.tolist() if index in self._feed.bad]
        if not bad:
            return None
        if not self._skip_bad:
            raise UserError(f"{bad[0]}; {REMEDY}")
        self.bad_images |= {error.name: error.reason for error in bad}
        good = [row for row, index in enumerate(indices.tolist()) if index not in self._feed.bad]
        if isinstance(self._order, ValOrder):
            return np.array(good, dtype=np.int64)
        if not good:
            raise UserError(f"{bad[0].name}: no image of its batch can be decoded")
        return filled(len(indices), good)

    def _batch(self, images: torch.Tensor, indices: Indices) -> Batch:
        images = images.permute(0, 3, 1, 2)
        targets = torch.from_numpy(self._images.targets[indices].astype("int64"))
        if self._device.type == "cuda":
            targets = targets.pin_memory().to(self._device, non_blocking=True)
        return Batch(
            images.contiguous() if self._contiguous else images, targets, torch.from_numpy(indices.copy())
        )

    def _find_unreadable(self, indices: Indices, error: Exception) -> None:
        """Let the feed know of the images that DALI can't decode.

        Raises:
            Exception: `error` itself if DALI can decode them all.
        """
        untried = [index for index in indices.tolist() if index not in self._feed.odd | self._feed.bad.keys()]
        opened = zip(untried, self._images.read(untried), strict=True)
        unreadable = {index for index, opener in opened if not _readable(opener())}
        if not unreadable:
            raise error
        self._feed.odd |= unreadable


def _open_images(path: Path, split: str, classes: Sequence[str]) -> Images:
    if is_packed(path, split):
        return PackedImages.open(open_files(path, split)).with_classes(classes)
    return list_images(path, split, classes)


class _Transform(Protocol):
    """What makes images of files in DALI's graph."""

    inputs: list[tuple[Any, int]]
    """DALI's type and number of dimensions of each array that `draw` gives"""

    def draw(self, image: Readable, epoch: int, index: int) -> tuple[Array, ...]:
        """See `effnet.data.feed.Draw`."""

    def __call__(self, encoded: Any, *drawn: Any) -> Any:
        """Nodes of the graph from encoded images and what was drawn for them to uint8 (side, side, 3)."""


@dataclass(frozen=True)
class _Stages:
    """DALI's operators with the settings that training and validation share."""

    decoder: Decoder
    preprocessing: Preprocessing

    def decoding(self) -> dict[str, Any]:
        """Keyword arguments of decoders."""
        if self.decoder == "cpu":
            return {"device": "cpu"}
        return {"device": "mixed", "jpeg_fancy_upsampling": True, **_LARGEST}  # colours as on the CPU

    def resized(self, images: Any, **shape: Any) -> Any:
        """Resize, then crop and flip if `shape` says so."""
        kind = _INTERPOLATIONS[self.preprocessing.interpolation]
        side = self.preprocessing.image_size
        return fn.resize_crop_mirror(images, interp_type=kind, crop=(side, side), **shape)


class _TrainTransform:
    """Random resized crop, horizontal flip and automatic augmentation; see `transforms.TrainTransform`."""

    def __init__(
        self, stages: _Stages, settings: DataSettings, seed: int, augment: "_Augmentation | None"
    ) -> None:
        self.stages, self.settings, self.seed, self.augment = stages, settings, seed, augment

        self.inputs = [(types.INT32, 1), (types.INT32, 1), (types.INT32, 0)]
        if augment:
            self.inputs.append((types.INT32, 2))

    def __call__(self, encoded: Any, start: Any, size: Any, flip: Any, *augment: Any) -> Any:
        """See `_Transform`."""
        side = self.stages.preprocessing.image_size
        images = fn.decoders.image_slice(
            encoded, start=start, shape=size, axes=(0, 1), **self.stages.decoding()
        )
        images = self.stages.resized(images, size=(side, side), mirror=flip)
        return _augmented(self.augment, images, *augment) if self.augment else images

    def draw(self, image: Readable, epoch: int, index: int) -> tuple[Array, ...]:
        """Where the crop begins, its size, whether the image is flipped, and the augmentation."""
        random = generator(Stream.SAMPLE, self.seed, epoch, index)
        box = crop_box(image.height, image.width, self.settings.crop_scale, self.settings.crop_ratio, random)
        start, size = np.array(box, np.int32).reshape(2, 2)
        flip = np.array(random.random() < self.settings.hflip, np.int32)
        return (start, size, flip, self.augment.draw(random)) if self.augment else (start, size, flip)


class _ValTransform:
    """Resize of the shorter side and centre crop; see `transforms.ValTransform`."""

    def __init__(self, stages: _Stages) -> None:
        self.stages = stages
        self.inputs = [(types.FLOAT, 1), (types.FLOAT, 1)]

    def __call__(self, encoded: Any, *drawn: Any) -> Any:
        """See `_Transform`."""
        size, place = drawn
        images = fn.decoders.image(encoded, **self.stages.decoding())
        return self.stages.resized(images, size=size, crop_pos_y=place[0], crop_pos_x=place[1])

    def draw(self, image: Readable, epoch: int, index: int) -> tuple[Array, ...]:
        """Size to resize to, and where the crop begins, as a share of the space that it has."""
        side, resize = self.stages.preprocessing.image_size, self.stages.preprocessing.resize
        shape = np.array(image.original, np.int64)
        size = resize * shape // shape.min()
        space = size - side
        return size.astype(np.float32), (np.round(space / 2) / np.maximum(space, 1)).astype(np.float32)


@pipeline_def(enable_conditionals=True)
def _prepared(batches: Any, transform: _Transform, to_gpu: bool) -> Any:
    """Pipeline of a loader: uint8 (N, image_size, image_size, 3)."""
    inputs = [(types.UINT8, 1), *transform.inputs]
    encoded, *drawn = fn.external_source(
        batches,
        num_outputs=len(inputs),
        dtype=[kind for kind, _ in inputs],
        ndim=[ndim for _, ndim in inputs],
        no_copy=True,
    )
    images = transform(encoded, *drawn)
    return images.gpu() if to_gpu else images


@dataclass(frozen=True)
class _Augmentation:
    """An automatic augmentation by DALI's operations."""

    stages: list[list[Any]]
    """operations among which each stage has its choice"""
    num_bins: int
    """steps on the scale of magnitudes"""
    draw: Callable[[np.random.Generator], Array]
    """int32 (stages, 3) for an image: in each stage, the operation, its magnitude, and 1 if that is negated"""


def _auto_augment(side: int) -> _Augmentation:
    policy = auto_augment.get_reduced_image_net_policy()
    rows = policy.sub_policies
    stages: list[dict[str, Any]] = [{"": augmentations.identity} for _ in range(max(map(len, rows)))]
    for row in rows:
        for stage, (operation, _, _) in zip(stages, row, strict=False):
            stage[operation.name] = operation
    numbers = [{name: number for number, name in enumerate(stage)} for stage in stages]

    def draw(random: np.random.Generator) -> Array:
        drawn = np.zeros((len(stages), 3), np.int32)
        for stage, (operation, probability, magnitude) in enumerate(rows[random.integers(len(rows))]):
            if random.random() < probability:
                drawn[stage] = numbers[stage][operation.name], magnitude or 0, random.integers(2)
        return drawn

    return _Augmentation([list(stage.values()) for stage in stages], policy.num_magnitude_bins, draw)


def _rand_augment(side: int, stages: int = 2, magnitude: int = 9, num_bins: int = 31) -> _Augmentation:
    operations = rand_augment.get_rand_augment_suite(max_translate_abs=round(side * 100 / 224))

    def draw(random: np.random.Generator) -> Array:
        drawn = random.integers([len(operations), 1, 2], size=(stages, 3), dtype=np.int32)
        return drawn + np.array([0, magnitude, 0], np.int32)

    return _Augmentation([operations] * stages, num_bins, draw)


def _trivial_augment(side: int, num_bins: int = 31) -> _Augmentation:
    operations = trivial_augment.get_trivial_augment_wide_suite()

    def draw(random: np.random.Generator) -> Array:
        return random.integers([len(operations), num_bins, 2], size=(1, 3), dtype=np.int32)

    return _Augmentation([operations], num_bins, draw)


_AUGMENTATIONS: dict[str, Callable[[int], _Augmentation | None]] = {
    "none": lambda side: None,
    "autoaugment": _auto_augment,
    "randaugment": _rand_augment,
    "trivialaugment": _trivial_augment,
}


def _augmented(augmentation: _Augmentation, images: Any, drawn: Any) -> Any:
    """Images after what was drawn for them."""
    for stage, operations in enumerate(augmentation.stages):
        magnitude = signed_bin(drawn[stage, 1], random_sign=drawn[stage, 2])
        images = _applied(operations, images, drawn[stage, 0], magnitude, augmentation.num_bins)
    return images


def _applied(
    operations: list[Any], images: Any, chosen: Any, magnitude: Any, num_bins: int, first: int = 0
) -> Any:
    """The chosen one of `operations`, which are numbered from `first`: a batch is split until one remains."""
    if len(operations) == 1:
        return operations[0](images, magnitude_bin=magnitude, num_magnitude_bins=num_bins, fill_value=_FILL)
    half = len(operations) // 2
    if chosen < first + half:
        images = _applied(operations[:half], images, chosen, magnitude, num_bins, first)
    else:
        images = _applied(operations[half:], images, chosen, magnitude, num_bins, first + half)
    return images


def _device_id(device: torch.device) -> int | None:
    if device.type != "cuda":
        return None
    return torch.cuda.current_device() if device.index is None else device.index


@pipeline_def(batch_size=1, num_threads=1, device_id=None, prefetch_queue_depth=1)
def _one_file(content: bytes) -> Any:
    return fn.decoders.image(types.Constant(np.frombuffer(content, np.uint8)))


def _readable(image: Readable) -> bool:
    """Whether DALI can decode an image's file; pixels that lie packed are none."""
    if not isinstance(image, EncodedImage):
        return True
    try:
        _one_file(image.data).run()
    except Exception:
        return False
    return True


def documented_pipeline(
    folder: Path,
    batch_size: int,
    threads: int,
    side: int,
    *,
    interpolation: str = "bilinear",
    augment: bool = False,
    seed: int = 0,
) -> Any:
    """The peer that ``dali-cpu`` is measured against: the training pipeline of DALI's documentation, on the CPU.

    After DALI's example "ImageNet training in PyTorch" and, for `augment`, its page on automatic augmentations:
    its file reader, random crop while decoding, resize, flip and normalisation.

    Args:
        folder: class folders with images.
        side: of the output in pixels.
        interpolation: bilinear, as documented, or another for a like comparison.
        augment: AutoAugment with DALI's ImageNet policy.

    Returns:
        an iterator over an epoch at a time: batches as ``[{"data": float32 (N, 3, side, side), "label": (N, 1)}]``.
    """
    with warnings.catch_warnings(record=True):
        pipeline = _documented(
            str(folder),
            side,
            _INTERPOLATIONS[interpolation],
            augment,
            batch_size=batch_size,
            num_threads=threads,
            device_id=None,
            seed=seed,
        )
        return DALIClassificationIterator(
            pipeline, reader_name="Reader", last_batch_policy=LastBatchPolicy.PARTIAL, auto_reset=True
        )


@pipeline_def(enable_conditionals=True)
def _documented(folder: str, side: int, interpolation: Any, augment: bool) -> Any:
    jpegs, labels = fn.readers.file(file_root=folder, random_shuffle=True, pad_last_batch=True, name="Reader")
    images = fn.decoders.image_random_crop(
        jpegs, random_area=[0.08, 1.0], random_aspect_ratio=[3 / 4, 4 / 3], num_attempts=100
    )
    images = fn.resize(images, resize_x=side, resize_y=side, interp_type=interpolation)
    mirror = fn.random.coin_flip(probability=0.5)
    if augment:
        images = auto_augment.auto_augment_image_net(fn.flip(images, horizontal=mirror))
        mirror = 0
    images = fn.crop_mirror_normalize(
        images,
        dtype=types.FLOAT,
        output_layout="CHW",
        mirror=mirror,
        mean=[255 * value for value in IMAGENET_MEAN],
        std=[255 * value for value in IMAGENET_STD],
    )
    return images, labels
