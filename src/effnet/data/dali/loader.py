"""The loaders of the backends dali-cpu and dali-gpu."""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch

from effnet.data.augmentations import AUGMENTATIONS, repeated_dali
from effnet.data.batch import Batch, DataSource
from effnet.data.dali.graph import Decoder, Graph, Stages, TrainGraph, ValGraph, prepared
from effnet.data.dali.library import fn, pipeline_def, types
from effnet.data.decode import EncodedImage, Readable
from effnet.data.feed import Feed
from effnet.data.files import open_files
from effnet.data.labels import SplitLabels, labels_of
from effnet.data.loader import REMEDY, opened_source
from effnet.data.packed import PackedImages, is_packed, packed_classes
from effnet.data.position import Indices, Position, TrainOrder, ValOrder
from effnet.data.request import DataRequest
from effnet.data.sources import SplitRecord, open_splits
from effnet.data.work import Images, filled
from effnet.runtime.errors import UserError


def open_dali(decoder: Decoder, request: DataRequest) -> DataSource:
    """Open a data source or a packed set; see `effnet.data.open_data`.

    Args:
        decoder: ``cpu`` prepares images on the CPU and copies the result to the device; ``mixed`` decodes and
            prepares them on the GPU.
        request: what to open.

    Raises:
        UserError: also for ``mixed`` where the device is no GPU.
    """
    if decoder == "mixed" and request.device.type != "cuda":
        raise UserError("--data-backend dali-gpu needs a GPU; take dali-cpu")
    if request.recipe.data.random_erasing and "train" in request.splits:
        raise UserError(
            "--random-erasing needs --data-backend pytorch or packed; DALI has no form of it here"
        )
    opened, classes, made = _open_images(request)
    stages = Stages(decoder, request.preprocessing)
    settings, seed = request.recipe.data, request.recipe.compute.seed
    loaders: dict[str, DaliLoader] = {}
    labels = labels_of(opened)
    for split, images in opened.items():
        graph: Graph
        if split == "train":
            form = AUGMENTATIONS[settings.augmentation].dali(request.preprocessing.image_size)
            augment = repeated_dali(form, settings.augmentation_strength)
            graph = TrainGraph(stages, settings, seed, augment)
        else:
            graph = ValGraph(stages)
        order = request.order(split, len(images), labels[split])
        loaders[split] = DaliLoader(images, labels[split], order, graph, request)
    source = opened_source(request, classes, loaders, opened)
    source.made_split = made
    return source


# Batches that a pipeline holds beside its prefetch queue: one entering, one leaving.
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
        labels: SplitLabels,
        order: TrainOrder | ValOrder,
        graph: Graph,
        request: DataRequest,
    ) -> None:
        recipe, device, threads = request.recipe, request.device, max(1, request.workers)
        self.num_images, self.batch_size = len(images), recipe.optimizer.batch_size
        self.bad_images: dict[str, str] = {}
        self._skip_bad = recipe.data.on_bad_image == "skip"
        self._images, self._labels, self._order, self._device = images, labels, order, device
        self._contiguous = recipe.compute.memory_format == "nchw"
        self._feed = Feed(
            images,
            order,
            graph.draw,
            threads=threads,
            lent=recipe.data.prefetch + _HELD_BESIDE_PREFETCH,
            timeout=recipe.data.data_timeout,
        )
        self._define = partial(
            prepared,
            graph=graph,
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

    def state_dict(self) -> dict[str, Any]:
        """Return the position, and which files Pillow decodes: DALI may succeed with another crop of the same file."""
        refused = {"refused": sorted(self._feed.refused)} if self._feed.refused else {}
        return {**super().state_dict(), **refused}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go to a position that `state_dict` returned."""
        super().load_state_dict(state)
        refused = set(state.get("refused", ()))
        if refused != self._feed.refused:
            self._feed.refused, self._pipeline = refused, None

    def __iter__(self) -> Iterator[Batch]:
        """Yield the rest of the current epoch.

        Raises:
            UserError: an image that can't be decoded; the file is named.
        """
        while self.step < len(self):
            yield from self._until_failure()
        self._next_epoch()

    def _until_failure(self) -> Iterator[Batch]:
        """Yield batches to the epoch's end, or up to one with a file that DALI can't decode."""
        if self._pipeline is None or self._reached != (self.epoch, self.step):
            # DALI warns, past any filter, of its own policies' use of what it deprecated
            with warnings.catch_warnings(record=True):
                self._pipeline = self._define(self._feed.batches(self.epoch, self.step))
                self._pipeline.build()
        for places in self._order.batches(self.epoch, self.step):
            indices = places % len(self._images)
            try:
                images = self._next_images()
            except UserError:
                raise
            except Exception as error:  # DALI raises many kinds; the pipeline can't be used afterwards
                self._pipeline = None
                self._find_unreadable(indices, error)
                return
            kept = self._kept(indices)
            self.step += 1
            last = self.step == len(self)
            self._reached = (self.epoch + 1, 0) if last else (self.epoch, self.step)
            if kept is not None:
                images, indices = images[torch.from_numpy(kept)], indices[kept]
            if len(indices):  # otherwise all its images are broken
                yield self._batch(images, indices)

    def _next_images(self) -> torch.Tensor:
        """Return images (N, H, W, 3) on the device, without a copy: DALI keeps the memory while the tensor exists."""
        cuda = self._device.type == "cuda"
        (images,) = self._pipeline.run(torch.cuda.current_stream(self._device) if cuda else None)
        return torch.from_dlpack(images.as_tensor())

    def _kept(self, indices: Indices) -> Indices | None:
        """Return the rows of a batch to hand out, None for all.

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
        targets, weights = self._labels.batch(indices)
        return Batch(
            images.contiguous() if self._contiguous else images,
            self._on_device(targets),
            torch.from_numpy(indices.copy()),
            None if weights is None else self._on_device(weights),
        )

    def _on_device(self, values: torch.Tensor) -> torch.Tensor:
        if self._device.type != "cuda":
            return values
        return values.pin_memory().to(self._device, non_blocking=True)

    def _find_unreadable(self, indices: Indices, error: Exception) -> None:
        """Find the images that DALI can't decode, and pass them to the feed.

        Raises:
            Exception: `error` itself if DALI can decode them all.
        """
        untried = [
            index for index in indices.tolist() if index not in self._feed.refused | self._feed.bad.keys()
        ]
        opened = zip(untried, self._images.read(untried), strict=True)
        unreadable = {index for index, opener in opened if not _readable(opener())}
        if not unreadable:
            raise error
        self._feed.refused |= unreadable


def _open_images(request: DataRequest) -> tuple[dict[str, Images], Sequence[str], SplitRecord | None]:
    """Return the images of the splits, the class names, and the split if it was made and not found."""
    path, splits, settings = request.file_path, request.splits, request.recipe.data
    if not is_packed(path, splits[0]):
        opened = open_splits(request.recipe, path, splits, request.classes, stored=request.stored_split)
        return dict(opened.images), opened.classes, opened.made
    classes = request.classes or packed_classes(path, splits)
    packed = {
        split: PackedImages.open(open_files(path, split), max_pixels=settings.max_pixels) for split in splits
    }
    return {split: images.with_classes(classes) for split, images in packed.items()}, classes, None


def _device_id(device: torch.device) -> int | None:
    if device.type != "cuda":
        return None
    return torch.cuda.current_device() if device.index is None else device.index


@pipeline_def(batch_size=1, num_threads=1, device_id=None, prefetch_queue_depth=1)
def _one_file(content: bytes) -> Any:
    return fn.decoders.image(types.Constant(np.frombuffer(content, np.uint8)))


def _readable(image: Readable) -> bool:
    """Return True if DALI can decode an image's file, or if the image is packed pixels."""
    if not isinstance(image, EncodedImage):
        return True
    try:
        _one_file(image.data).run()
    except Exception:
        return False
    return True
