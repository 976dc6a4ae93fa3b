"""Images of a PyTorch `Dataset`: what a program hands over instead of a path."""

import hashlib
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import ConcatDataset, Dataset, IterableDataset, Subset, get_worker_info

from effnet.data.decode import BadImageError, Readable
from effnet.data.image_files import Targets
from effnet.data.packed import RawImage
from effnet.data.pixels import pixels_of
from effnet.data.randomness import Stream, seed_of
from effnet.runtime.errors import UserError, one_line
from effnet.runtime.progress import ProgressBar

_TARGETS = ("targets", "labels")
_COMPARED = 8  # items of a data set whose targets must be those of its attribute


@dataclass(frozen=True)
class DatasetImages:
    """Items of a data set, which each worker gets a copy of.

    Its own random numbers, those of `random`, NumPy's and PyTorch's global generators, depend on the seed, the epoch
    and the item alone.
    """

    dataset: Any
    """a map-style `torch.utils.data.Dataset`, or anything with a length and items ``(image, target)``"""
    classes: list[str]
    """class names in the order of the targets"""
    targets: Targets
    """int32 (N,), or uint8 (N, C) for several labels"""
    own_targets: Targets
    """the same in the data set's own order of classes, as its items have them"""
    _rows: npt.NDArray[np.int64]
    identity: str
    """of the data set, by its fingerprint if it has one, its classes and its targets"""
    seed: int = 0
    """seed of the run"""
    weights: npt.NDArray[np.float32] | None = None
    """(N,) weight of each image in the loss; None for equal ones"""

    def __len__(self) -> int:
        return len(self.targets)

    def file(self, index: int) -> str:
        """See `effnet.data.loader.Images`."""
        return f"{type(self.dataset).__name__}: item {self._rows[index]}"

    def name(self, index: int) -> str:
        """Name of image `index`: its item, and the data set's identity, so that a stored split knows another one."""
        return f"item {self._rows[index]} of {self.identity}"

    def fingerprint(self) -> str:
        """SHA-256 of the data set's identity, and each image's item and target."""
        digest = hashlib.sha256("\0".join([self.identity, *self.classes]).encode())
        digest.update(np.ascontiguousarray(self.targets).data)
        digest.update(self._rows.data)
        return digest.hexdigest()

    def subset(self, indices: npt.NDArray[np.int64]) -> Self:
        """Return the images at `indices` (M,), in that order."""
        weights = None if self.weights is None else self.weights[indices]
        return replace(
            self,
            targets=self.targets[indices],
            own_targets=self.own_targets[indices],
            weights=weights,
            _rows=self._rows[indices],
        )

    def read(self, indices: Sequence[int], epoch: int = 0) -> Iterator[Callable[[], Readable]]:
        """See `effnet.data.loader.Images`; `epoch` decides the data set's own random numbers."""
        return (partial(self._image, index, epoch) for index in indices)

    def _image(self, index: int, epoch: int) -> Readable:
        row = int(self._rows[index])
        with _seeded(self.seed, epoch, row):
            image, target = item_of(self.dataset, row)
        if not np.array_equal(target, self.own_targets[index]):
            raise UserError(
                f"{self.file(index)}: its target is {target.tolist()}, and was {self.own_targets[index].tolist()} when "
                "the run began; targets must not change"
            )
        try:
            return RawImage(pixels_of(image))
        except UserError as error:
            raise BadImageError(self.file(index), str(error)) from None


def item_of(dataset: Any, row: int) -> tuple[Any, Targets]:
    """Return the image and the target of an item: int32 (), or uint8 (C,) for several labels.

    Raises:
        BadImageError: the data set can't read the image.
        UserError: the item is no pair, or its target neither an integer nor zeros and ones.
    """
    name = f"{type(dataset).__name__}: item {row}"
    try:
        item = dataset[row]
    except OSError as error:  # a missing file, or one that Pillow can't decode
        raise BadImageError(name, f"can't be read: {one_line(error)}") from None
    if not isinstance(item, tuple | list) or len(item) != 2:
        raise UserError(f"{name} is a {type(item).__name__}, not a pair of an image and its class")
    return item[0], _target(item[1], name)


def _target(value: Any, name: str) -> Targets:
    target = np.asarray(value.cpu() if isinstance(value, torch.Tensor) else value)
    if target.ndim == 0 and target.dtype.kind in "iu" and 0 <= target < 1 << 31:
        return target.astype(np.int32)
    if target.ndim == 1 and target.dtype.kind in "iubf" and np.isin(target, (0, 1)).all():
        return target.astype(np.uint8)
    raise UserError(
        f"{name}: its target is {one_line(value, 50)}; pass a class from 0, or a 0 or 1 for each of several labels"
    )


def dataset_images(dataset: Any, *, seed: int = 0) -> DatasetImages:
    """Find the targets and the classes of a data set.

    Targets are taken from its attribute `targets` or `labels` if it has one (also through `Subset` and
    `ConcatDataset`) that agrees with some of the items; otherwise each item is read once. Classes are those of its
    attribute `classes`, else numbers.

    Args:
        dataset: a map-style `Dataset` with items ``(image, class)`` or ``(image, zeros and ones)``.
        seed: seed of the run.

    Raises:
        UserError: it has no length or no items, or items of another form.
    """
    name = type(dataset).__name__
    if isinstance(dataset, IterableDataset) or not hasattr(dataset, "__len__"):
        raise UserError(f"{name}: has no length; pass a Dataset with __len__ and __getitem__")
    if not len(dataset):
        raise UserError(f"{name}: has no items")
    targets = _known_targets(dataset)
    if targets is None or not _agree(dataset, targets):
        targets = _read_targets(dataset)
    found = int(targets.max()) + 1 if targets.ndim == 1 else targets.shape[1]
    classes = [str(each) for each in _attribute(dataset, "classes") or range(found)]
    if len(classes) < found:
        raise UserError(f"{name}: has {len(classes)} classes, but a target is {found - 1}")
    rows = np.arange(len(targets))
    return DatasetImages(dataset, classes, targets, targets, rows, _identity(dataset, classes, targets), seed)


def _identity(dataset: Any, classes: Sequence[str], targets: Targets) -> str:
    own = getattr(dataset, "fingerprint", getattr(dataset, "_fingerprint", ""))
    digest = hashlib.sha256("\0".join([str(own() if callable(own) else own), *classes]).encode())
    digest.update(np.ascontiguousarray(targets).data)
    return digest.hexdigest()[:12]


def _attribute(dataset: Any, name: str) -> Any:
    """Return an attribute of a data set, or of the one that it is a part of; None without any."""
    if isinstance(dataset, Subset):
        return _attribute(dataset.dataset, name)
    if isinstance(dataset, ConcatDataset):
        values = [_attribute(part, name) for part in dataset.datasets]
        return values[0] if all(value == values[0] for value in values) else None
    value = getattr(dataset, name, None)
    return value if isinstance(value, list | tuple) else None


def _known_targets(dataset: Any) -> Targets | None:
    if isinstance(dataset, Subset):
        of_all = _known_targets(dataset.dataset)
        return None if of_all is None else of_all[np.asarray(dataset.indices, np.int64)]
    if isinstance(dataset, ConcatDataset):
        parts = [_known_targets(part) for part in dataset.datasets]
        known = [part for part in parts if part is not None]
        return np.concatenate(known) if len(known) == len(parts) else None
    for name in _TARGETS:
        value = getattr(dataset, name, None)
        if isinstance(value, list | tuple | np.ndarray | torch.Tensor) and len(value) == len(dataset):
            array = np.asarray(value)
            if array.ndim == 1 and array.dtype.kind in "iu" and array.min() >= 0:
                return array.astype(np.int32)
            if array.ndim == 2 and array.dtype.kind in "iubf" and np.isin(array, (0, 1)).all():
                return array.astype(np.uint8)
    return None


def _agree(dataset: Any, targets: Targets) -> bool:
    rows = np.linspace(0, len(targets) - 1, min(_COMPARED, len(targets))).astype(int).tolist()
    with _seeded(0, 0, 0):
        return all(np.array_equal(_target_of(dataset, row, targets[row]), targets[row]) for row in rows)


def _target_of(dataset: Any, row: int, otherwise: Targets | None = None) -> Targets:
    try:
        return item_of(dataset, row)[1]
    except BadImageError as error:
        if otherwise is None:
            raise UserError(
                f"{error}; give the data set an attribute `targets`, or leave the item out"
            ) from None
        return otherwise


def _read_targets(dataset: Any) -> Targets:
    name, targets = type(dataset).__name__, []
    with ProgressBar(f"targets of {name}", len(dataset)) as progress, _seeded(0, 0, 0):
        for row in range(len(dataset)):
            targets.append(_target_of(dataset, row))
            progress.advance(1)
    if len({target.shape for target in targets}) > 1:
        raise UserError(
            f"{name}: its targets differ in form; all must be classes, or zeros and ones for each label"
        )
    return np.stack(targets)


def is_dataset(value: object) -> bool:
    """Return True for a data set: a `Dataset`, or what has its methods and is no container of paths."""
    has_methods = hasattr(value, "__len__") and hasattr(value, "__getitem__")
    return isinstance(value, Dataset) or (
        has_methods and not isinstance(value, str | bytes | tuple | list | dict)
    )


@contextmanager
def _seeded(seed: int, epoch: int, row: int) -> Iterator[None]:
    """Seed the global generators for an item; in the training process itself they are restored."""
    kept = None
    if get_worker_info() is None:
        kept = random.getstate(), np.random.get_state(), torch.get_rng_state()
    number = seed_of(Stream.ITEM, seed, epoch, row, 0)
    random.seed(number)
    np.random.seed(number & 0xFFFFFFFF)
    torch.random.default_generator.manual_seed(number & ((1 << 63) - 1))
    try:
        yield
    finally:
        if kept is not None:
            random.setstate(kept[0])
            np.random.set_state(kept[1])
            torch.set_rng_state(kept[2])
