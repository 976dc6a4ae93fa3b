"""Folders of Hugging Face `datasets` (``save_to_disk``), the only module that imports that package.

Only files of the folder are read: no network, and none of the code that a data set on the hub may bring.
"""

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from effnet.data.decode import BadImageError, EncodedImage
from effnet.data.image_files import Targets
from effnet.data.limits import MAX_PIXELS, most_bytes
from effnet.runtime.errors import UserError, one_line
from effnet.runtime.extras import install_command

_AT_ONCE = 16_384  # rows decoded at a time
_OF_SEVERAL, _OF_ONE = "dataset_dict.json", ("state.json", "dataset_info.json")
_VALIDATION = ("val", "validation", "valid", "test")


def is_saved_dataset(path: Path) -> bool:
    """Return True for a folder that `Dataset.save_to_disk` or `DatasetDict.save_to_disk` has written."""
    return (path / _OF_SEVERAL).is_file() or all((path / name).is_file() for name in _OF_ONE)


@dataclass(frozen=True)
class SavedImages:
    """Images of rows of a data set, which stays on the disk."""

    root: Path
    """its folder"""
    classes: list[str]
    """class names in the order of the targets"""
    targets: Targets
    """int32 (N,), or uint8 (N, C) for several labels"""
    _rows: npt.NDArray[np.int64]
    _images: Any
    """the column of images alone, not decoded"""
    _column: str
    _version: str
    """the data set's own fingerprint"""
    max_pixels: int = MAX_PIXELS
    """pixels that an image may have"""
    weights: npt.NDArray[np.float32] | None = None
    """(N,) weight of each image in the loss; None for equal ones"""

    def __len__(self) -> int:
        return len(self.targets)

    def file(self, index: int) -> str:
        """See `effnet.data.loader.Images`."""
        return f"{self.root}: {self.name(index)}"

    def name(self, index: int) -> str:
        """Name of image `index`: its row."""
        return f"row {self._rows[index]}"

    def key(self, index: int) -> bytes:
        """Return eight bytes that change with the row or the data set's files."""
        text = f"{self._version}\0{self._rows[index]}"
        return hashlib.blake2b(text.encode(), digest_size=8).digest()

    def fingerprint(self) -> str:
        """SHA-256 of the data set's own fingerprint, the class list, and each image's row and target."""
        digest = hashlib.sha256("\0".join([self._version, *self.classes]).encode())
        digest.update(np.ascontiguousarray(self.targets).data)
        digest.update(self._rows.data)
        return digest.hexdigest()

    def subset(self, indices: npt.NDArray[np.int64]) -> Self:
        """Return the images at `indices` (M,), in that order."""
        weights = None if self.weights is None else self.weights[indices]
        return replace(self, targets=self.targets[indices], weights=weights, _rows=self._rows[indices])

    def read(self, indices: Sequence[int]) -> Iterator[Callable[[], EncodedImage]]:
        """See `effnet.data.loader.Images`."""
        cells = self._cells(indices)
        return (partial(self._image, index, cell) for index, cell in zip(indices, cells, strict=True))

    def content(self, index: int) -> bytes:
        """Return the file of image `index`; raise `BadImageError` if it can't be read."""
        return self._image(index, self._cells([index])[0]).data

    def image(self, index: int) -> EncodedImage:
        """Open image `index`; raise `BadImageError` if it can't be read, is no image, or is beyond a limit."""
        return self._image(index, self._cells([index])[0])

    def _cells(self, indices: Sequence[int]) -> list[Any]:
        try:
            rows = self._images[self._rows[np.asarray(indices, np.int64)].tolist()]
            return list(rows[self._column])
        except Exception as error:  # PyArrow raises nearly anything on damaged files
            raise UserError(f"{self.root}: damaged ({one_line(error)}); save it again") from None

    def _image(self, index: int, cell: Any) -> EncodedImage:
        data, path = (cell, None) if isinstance(cell, bytes) else (None, None)
        if isinstance(cell, Mapping):
            data, path = cell.get("bytes"), cell.get("path")
        if data is not None:
            if len(data) > (limit := most_bytes(self.max_pixels)):
                raise BadImageError(
                    self.file(index), f"{len(data):,} bytes are more than --max-pixels allows ({limit:,})"
                )
            return EncodedImage(self.file(index), data, self.max_pixels)
        if not isinstance(path, str) or "://" in path:
            raise BadImageError(self.file(index), "holds no image and no path of one")
        return EncodedImage(os.path.join(self.root, path), max_pixels=self.max_pixels)


@dataclass(frozen=True)
class SavedTable:
    """The rows of one data set.

    Attributes:
        place: its folder.
        rows: the data set.
    """

    place: Path
    rows: Any

    def class_names(self, column: str) -> list[str]:
        """Return the names of the classes that a column's type states, or that of its lists; empty for other types."""
        feature = self.rows.features[column]
        return list(getattr(getattr(feature, "feature", feature), "names", None) or ())

    def image_columns(self) -> list[str]:
        """Return the names of the columns of images."""
        import datasets

        return [name for name, feature in self.rows.features.items() if isinstance(feature, datasets.Image)]

    def images(self, column: str) -> Any:
        """Return the column of images alone, as a data set that does not decode them.

        Raises:
            UserError: it is one of other things.
        """
        import datasets

        images = self.rows.select_columns([column])
        if column in self.image_columns():
            return images.cast_column(column, datasets.Image(decode=False))
        feature = self.rows.features[column]
        if getattr(feature, "dtype", "") not in ("binary", "large_binary"):
            raise UserError(
                f"{self.place}: column {column} holds {feature}, not images; name another by --path-column"
            )
        return images

    def read(self, columns: Sequence[str]) -> Iterator[list[Any]]:
        """Yield the values of some columns, row by row; classes by their names, None for those without."""
        names = [self.class_names(column) for column in columns]
        try:
            for batch in self.rows.select_columns(list(columns)).with_format("arrow").iter(_AT_ONCE):
                parts = [batch.column(column).to_pylist() for column in columns]
                for values in zip(*parts, strict=True):
                    yield [_named(value, of) for value, of in zip(values, names, strict=True)]
        except Exception as error:  # PyArrow raises nearly anything on damaged files
            raise UserError(f"{self.place}: damaged ({one_line(error)}); save it again") from None


def _named(value: Any, names: Sequence[str]) -> Any:
    """Return the name of a class, or those of a list of classes."""
    if isinstance(value, list):
        return [_named(each, names) for each in value]
    if not names or value is None:
        return value
    return names[value] if 0 <= value < len(names) else None


def open_saved(path: Path) -> dict[str, SavedTable]:
    """Open a folder that `save_to_disk` has written, by split: ``train`` and ``val``, or ``""`` for a single data set.

    Of several data sets ``train`` is for training, and the first of ``val``, ``validation``, ``valid`` and ``test`` for
    validation.

    Raises:
        UserError: `datasets` is missing, or the folder is damaged or holds none of these.
    """
    try:
        import datasets
    except ImportError:
        raise UserError(f"{path}: such folders need datasets: {install_command('datasets')}") from None
    datasets.disable_progress_bars()
    try:
        found = datasets.load_from_disk(str(path.absolute()), keep_in_memory=False)
    except Exception as error:  # PyArrow raises nearly anything on damaged files
        raise UserError(f"{path}: damaged, or no folder of save_to_disk ({one_line(error)})") from None
    if not isinstance(found, Mapping):
        return {"": SavedTable(path, found)}
    names = {"train": "train" if "train" in found else None}
    names["val"] = next((name for name in _VALIDATION if name in found), None)
    splits = {split: SavedTable(path / name, found[name]) for split, name in names.items() if name}
    if not splits:
        raise UserError(
            f"{path}: holds no split train or {' or '.join(_VALIDATION)}, only {', '.join(found)}"
        )
    return splits


def joined(path: Path, tables: Sequence[SavedTable]) -> SavedTable:
    """Return the rows of all data sets of a folder, one after the other.

    Raises:
        UserError: they have other columns.
    """
    import datasets

    if len(tables) == 1:
        return tables[0]
    try:
        return SavedTable(path, datasets.concatenate_datasets([table.rows for table in tables]))
    except Exception as error:  # of columns that do not fit
        raise UserError(
            f"{path}: its data sets do not fit together ({one_line(error)}); name one of them"
        ) from None
