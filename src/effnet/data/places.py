"""Where the data of a run is: a path, or PyTorch data sets that a program hands over."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any, TypeAlias, Union

from effnet.data.dataset_images import DatasetImages, dataset_images, is_dataset
from effnet.runtime.errors import UserError

ALL = ""
"""name in `Datasets` of a data set that is not divided into training and validation"""

DataLike: TypeAlias = Union[str, "PathLike[str]", Any]
"""Data as a program names it.

- a path of a data source: a folder, a table, an archive
- a map-style `torch.utils.data.Dataset` of pairs (image, class) or (image, zeros and ones for several labels), where an
  image is a Pillow image, an array uint8 (H, W, 3), or a tensor uint8 (3, H, W); it is divided as a folder is
- two of them, for training and for validation, or a mapping of them by ``train`` and ``val``
"""


@dataclass(frozen=True)
class Datasets:
    """Data sets in place of a path.

    Attributes:
        by_split: ``train`` and ``val``, one of the two, or a single one under `ALL`.
    """

    by_split: Mapping[str, Any]
    _opened: dict[str, DatasetImages] = field(default_factory=dict, compare=False, repr=False)

    def __str__(self) -> str:
        return ", ".join(dict.fromkeys(type(each).__name__ for each in self.by_split.values()))

    def images(self, split: str) -> DatasetImages:
        """Return the images of a split; targets are found once.

        Raises:
            UserError: there is no such data set, or it is one that can't be used.
        """
        if split not in self.by_split:
            raise UserError(f"{self}: no data set for {split}; pass a pair, for training and for validation")
        if split not in self._opened:
            self._opened[split] = dataset_images(self.by_split[split])
        return self._opened[split]


DataPlace: TypeAlias = Path | Datasets
"""where the data of a run is"""


def data_place(data: DataLike | None, *, split: str = ALL) -> DataPlace | None:
    """Return the place of data; None for none.

    Args:
        data: a path, or data sets.
        split: that a single data set is for.

    Raises:
        UserError: neither.
    """
    if data is None or isinstance(data, Datasets):
        return data
    if isinstance(data, str | PathLike):
        return Path(data)
    if (
        isinstance(data, Mapping)
        and {"train", "val"} >= data.keys()
        and data
        and all(map(is_dataset, data.values()))
    ):
        return Datasets(dict(data))
    if isinstance(data, tuple | list) and len(data) == 2 and all(map(is_dataset, data)):
        return Datasets(dict(zip(("train", "val"), data, strict=True)))
    if is_dataset(data):
        return Datasets({split: data})
    raise UserError(
        f"no data: {type(data).__name__}; pass a path, a PyTorch Dataset, a pair (train, val) of them, or a mapping by "
        "train and val"
    )
