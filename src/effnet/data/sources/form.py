"""The form of a kind of data source."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, Self, runtime_checkable

import numpy as np
import numpy.typing as npt

from effnet.data.decode import EncodedImage
from effnet.data.image_files import Targets
from effnet.recipe import DataSettings

UNSPLIT = ""
"""name in a `Listing` of the images of a source that says nothing about training and validation"""


@runtime_checkable
class SourceImages(Protocol):
    """Encoded images of a source in a fixed order, with random access; each worker gets a copy."""

    @property
    def root(self) -> Path:
        """Folder that `name` starts from; what is remembered of images that decode is kept for it."""

    @property
    def classes(self) -> list[str]:
        """Class names in the order of the targets."""

    @property
    def targets(self) -> Targets:
        """int32 (N,) positions of classes; uint8 (N, C) of 0 and 1 for images with several labels."""

    @property
    def weights(self) -> npt.NDArray[np.float32] | None:
        """float32 (N,) weights in the loss; None for equal ones."""

    @property
    def max_pixels(self) -> int:
        """Pixels that an image may have."""

    def __len__(self) -> int:
        """Images."""

    def name(self, index: int) -> str:
        """Return what tells an image from the others of the source, wherever the source lies."""

    def file(self, index: int) -> str:
        """Return the name of an image for messages."""

    def key(self, index: int) -> bytes:
        """Return eight bytes that change when the image does, found without reading it. May raise OSError."""

    def content(self, index: int) -> bytes:
        """Return an image as it is encoded. May raise OSError, or LimitError where it is too large."""

    def image(self, index: int) -> EncodedImage:
        """Open an image, or raise `BadImageError`."""

    def read(self, indices: Sequence[int]) -> Iterable[Callable[[], EncodedImage]]:
        """See `effnet.data.loader.Images`."""

    def fingerprint(self) -> str:
        """Return the SHA-256 of the class list and of every image's target and name."""

    def subset(self, indices: npt.NDArray[np.int64]) -> Self:
        """Return the images at `indices`, in that order."""


@dataclass(frozen=True)
class SourceRequest:
    """A request for the images of a source."""

    path: Path
    """the source"""
    settings: DataSettings
    """names of columns, `root`, `max_pixels`"""
    splits: Sequence[str] = ("train", "val")
    """splits to open, of ``train`` and ``val``"""
    classes: Sequence[str] | None = None
    """class names in the order of the targets; None for the source's own"""
    for_check: bool = False
    """an image that is not there, an empty class folder, and a class that is in validation alone are no errors, but
    found by `effnet prepare check`"""


@dataclass(frozen=True)
class Labels:
    """The labels of a source."""

    classes: list[str]
    """class names in the order of the targets"""
    several: bool = False
    """an image may have none or several of them"""


@dataclass(frozen=True)
class Listing:
    """The images of a source, ordered by class and then name; those with several labels by name."""

    classes: list[str]
    """class names in the order of the targets"""
    images: Mapping[str, SourceImages]
    """the splits asked for; or all images under `UNSPLIT` where the source says nothing about them"""
    groups: npt.NDArray[np.int64] | None = None
    """(N,) group of each unsplit image: images of a group stay together"""
    by_fold: bool = False
    """the splits are a fold and the others"""


@dataclass(frozen=True)
class Source:
    """A kind of data source."""

    name: str
    """value of ``--source``"""
    summary: str
    """its form, for the documentation's table"""
    detects: Callable[[Path], bool]
    """tells a path of this kind, for ``--source auto``"""
    labels: Callable[[SourceRequest], Labels]
    """finds the labels without opening the images"""
    list_images: Callable[[SourceRequest], Listing]
    """lists the images of the splits asked for, or of the source where it has no splits"""
    list_all: Callable[[SourceRequest], SourceImages]
    """lists every image, whatever its split; labels are not needed"""


@dataclass(frozen=True)
class Splits:
    """The opened splits of a source."""

    classes: list[str]
    """class names in the order of the targets"""
    images: dict[str, SourceImages]
    """by split: ``train``, ``val``"""
    several_labels: bool = False
    """targets are uint8 (N, C): an image may have none or several labels"""
    made: Any = field(default=None, compare=False)
    """the split as a `effnet.data.sources.record.SplitRecord`, if it was made here or by an earlier run; None where the
    source itself has one"""
