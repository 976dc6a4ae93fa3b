"""The interface of every input pipeline: batches on the device, from a position that can be saved and restored."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from effnet.data.labels import SplitLabels
from effnet.data.places import DataPlace
from effnet.data.sources.form import SourceImages
from effnet.data.sources.record import SplitRecord


@dataclass
class Batch:
    """Images of one step of one process."""

    images: Tensor
    """uint8 (N, 3, H, W) on the device, RGB, 0..255; channels-last strides unless the recipe asks for nchw"""
    targets: Tensor
    """on the device: int64 (N,), positions in the class list, or float32 (N, classes) with 1 for each label of an image
    that may have several"""
    indices: Tensor | None = None
    """int64 (N,) on the CPU: position of each image in its split, None where the backend has no image files"""
    weights: Tensor | None = None
    """float32 (N,) on the device: how much each image counts; None where all count the same"""


class Loader(Protocol):
    """Batches of a split for one process, epoch after epoch.

    The position is `epoch` and `step`, the batches of that epoch handed out so far. Iterating goes on from
    it, and a complete iteration leaves it at the start of the next epoch.
    """

    num_images: int
    """images of the split over all processes"""
    batch_size: int
    """images in a full batch of this process"""
    bad_images: dict[str, str]
    """images left out so far because they can't be decoded (``--on-bad-image skip``): name and reason"""

    def __len__(self) -> int:
        """Return the batches in an epoch for this process."""

    def __iter__(self) -> Iterator[Batch]:
        """Yield the rest of the current epoch."""

    def state_dict(self) -> dict[str, Any]:
        """Return the position as ``{"epoch": ..., "step": ...}``, and what this process knows of the images."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go to a position that `state_dict` returned."""


@dataclass
class DataSource:
    """The splits of a data set, opened for one process."""

    classes: list[str]
    """class names in the order of the targets"""
    train: Loader | None
    val: Loader | None
    files: dict[str, SourceImages] = field(default_factory=dict)
    """the splits that are encoded images of a data source, not a packed set"""
    labels: Mapping[str, SplitLabels] = field(default_factory=dict)
    """by split, the labels of all its images; for images whose labels are known without opening them"""
    names: Mapping[str, Callable[[int], str]] = field(default_factory=dict)
    """by split, a function that names an image by its position in the split; for images that have names"""
    each_once: Callable[[int], Iterator[Batch]] | None = None
    """reads one of every N training images once, N being its argument, each prepared as for validation and in one of
    the processes; None where the backend can't"""
    path: DataPlace = Path()
    """where the data lies"""
    made_split: SplitRecord | None = None
    """the split, if it was made by this run or an earlier one; None where the data has its own"""
