"""A division into training and validation that a run made, kept with it so that it comes back."""

import csv
import io
import logging
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from effnet.data.sources.form import SourceImages
from effnet.runtime.errors import UserError
from effnet.runtime.files import atomic_file

FILE = "split.csv"
"""name in a workspace"""
_log = logging.getLogger(__name__)
_SHOWN = 3
_MOST_BYTES = 1 << 30


@dataclass(frozen=True)
class SplitRecord:
    """The names of the images of each split, as `SourceImages.name` returns them, in the order of the split."""

    packed: Mapping[str, torch.Tensor]
    """by split, uint8: the names, compressed"""
    images: Mapping[str, SourceImages] | None = field(default=None, compare=False, repr=False)
    """the images by split; None for a record that was read"""
    is_binding: bool = True
    """the run goes on with exactly these images; False for a split that comes with weights, which holds for a source of
    the same images and for no other"""

    @classmethod
    def of(cls, images: Mapping[str, SourceImages]) -> "SplitRecord":
        """Return the record of listed splits."""
        return cls({split: _packed(map(of.name, range(len(of)))) for split, of in images.items()}, images)

    def to_dict(self) -> dict[str, torch.Tensor]:
        """Return the record for a checkpoint."""
        return dict(self.packed)

    def names(self, split: str) -> list[str]:
        """Return the names of a split's images; none for a split that the record lacks."""
        return _unpacked(self.packed[split]) if split in self.packed else []

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "SplitRecord":
        """Return the record that `to_dict` described.

        Raises:
            UserError: it is damaged.
        """
        if not isinstance(content, Mapping) or not {"train", "val"} >= content.keys():
            raise UserError("holds no names of images by split")
        for packed in content.values():
            _unpacked(packed)
        return cls(dict(content))

    def find(
        self, images: SourceImages, splits: Sequence[str], where: Path
    ) -> dict[str, npt.NDArray[np.int64]] | None:
        """Return the positions of the record's images, split by split; None if no image is in the record at all.

        Images that the record does not name are left out, and named in a message.

        Raises:
            UserError: an image of the record is no longer there; it is named.
        """
        places = {images.name(index): index for index in range(len(images))}
        names = {split: self.names(split) for split in self.packed}
        if not self.is_binding and set(places) != {name for of_split in names.values() for name in of_split}:
            return None
        known = {name for of_split in names.values() for name in of_split}
        new = [name for name in places if name not in known]
        if len(new) == len(places):
            return None
        found = {}
        for split in splits:
            if lost := [name for name in names.get(split, ()) if name not in places]:
                raise UserError(
                    f"{where}: no longer holds {_listed(lost)}, which the run's split has; put them back, or start a "
                    "new run"
                )
            found[split] = np.array([places[name] for name in names.get(split, ())], np.int64)
        if new:
            _log.info("%s: left out as the run's split lacks them: %s", where, _listed(new))
        return found

    def write_csv(self, path: Path) -> None:
        """Write a table of path, label and split, which is itself a source; nothing for a record that was read."""
        if self.images is None:
            return
        text = io.StringIO(newline="")
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(("path", "label", "split"))
        for split, of_split in self.images.items():
            for index in range(len(of_split)):
                writer.writerow((of_split.name(index), _label(of_split, index), split))
        with atomic_file(path) as file:
            file.write(text.getvalue().encode("utf-8", "surrogateescape"))


def _label(images: SourceImages, index: int) -> str:
    target = images.targets[index]
    if images.targets.ndim == 1:
        return images.classes[int(target)]
    return ";".join(images.classes[position] for position in np.flatnonzero(target).tolist())


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def _packed(names: Iterable[str]) -> torch.Tensor:
    content = "\0".join(names).encode("utf-8", "surrogateescape")
    return torch.frombuffer(bytearray(zlib.compress(content, 1)), dtype=torch.uint8)


def _unpacked(packed: Any) -> list[str]:
    if not isinstance(packed, torch.Tensor) or packed.dtype != torch.uint8 or packed.ndim != 1:
        raise UserError("holds no names of images by split")
    decompressor = zlib.decompressobj()
    try:
        content = decompressor.decompress(packed.numpy().tobytes(), _MOST_BYTES)
    except zlib.error:
        raise UserError("names of images are damaged") from None
    return content.decode("utf-8", "surrogateescape").split("\0") if content else []
