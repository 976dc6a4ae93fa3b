"""A table read into arrays: paths, labels, and what else its columns say of each image."""

import os
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from effnet.data.sources.columns import BINARY, Columns, TableSettings, find_columns
from effnet.data.sources.rows import Rows, open_rows
from effnet.runtime.errors import UserError

_SPLIT_NAMES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    "test": "test",
}
SPLIT_CODES = {"train": 0, "val": 1, "test": 2}
"""codes in `Table.splits`"""


@dataclass(frozen=True)
class Table:
    """Content of a table of N images, in its own order. Labels and folds are codes in order of appearance."""

    path: Path
    unit: str
    names: list[bytes]
    """paths of the images, as they are written"""
    lines: npt.NDArray[np.int64]
    """(N,) line of each image"""
    labels: list[str]
    codes: npt.NDArray[np.int32]
    """labels of all images, end to end"""
    counts: npt.NDArray[np.int32]
    """(N,) labels of each image"""
    several: bool
    ordered: bool
    """the order of the labels holds, as they are columns or their column's type states it; otherwise they are sorted"""
    splits: npt.NDArray[np.int8] | None
    """(N,) codes of `SPLIT_CODES`"""
    weights: npt.NDArray[np.float32] | None
    folds: npt.NDArray[np.int32] | None
    fold_names: list[str]
    groups: npt.NDArray[np.int64] | None
    """(N,) positions in the sorted names of groups"""

    def where(self, index: int) -> str:
        """Return the file and the line of an image, for messages."""
        return place(self.path, self.unit, int(self.lines[index]))


def place(path: Path, unit: str, line: int) -> str:
    """Return ``labels.csv:17``, or of a file without lines ``labels.parquet, row 17``."""
    return f"{path}:{line}" if unit == "line" else f"{path}, {unit} {line}"


def read_table(path: Path, settings: TableSettings, *, needs_labels: bool = True) -> Table:
    """Read a table.

    Raises:
        UserError: a file that can't be read, a column that is not there, or a value that can't be used; file and line
            are named.
    """
    try:
        found = os.stat(path)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
    return _read(path, (found.st_mtime_ns, found.st_size), settings, needs_labels)


def forget_table() -> None:
    """Free the table that was read last."""
    _read.cache_clear()


@lru_cache(maxsize=1)  # a run asks for the classes before it asks for the images
def _read(path: Path, version: tuple[int, int], settings: TableSettings, needs_labels: bool) -> Table:
    return table_of(path, open_rows(path), settings, needs_labels=needs_labels)


def table_of(path: Path, rows: Rows, settings: TableSettings, *, needs_labels: bool = True) -> Table:
    """Return the table of rows; see `read_table`."""
    columns = find_columns(path, rows, settings, needs_labels=needs_labels)
    return _Reader(path, rows, columns, settings).read(rows.read(columns.used))


class _Codes(dict[str, int]):
    """Codes of texts, in order of appearance."""

    def __missing__(self, text: str) -> int:
        code = self[text] = len(self)
        return code


class _Reader:
    """Collects the rows of a table in arrays."""

    def __init__(self, path: Path, rows: Rows, columns: Columns, settings: TableSettings) -> None:
        self.path, self.unit, self.columns, self.header = path, rows.unit, columns, rows.columns
        self.separator = settings.label_separator
        self.several = bool(columns.binary) or self.separator is not None
        stated = [self.header[position] for position in columns.binary]
        if columns.label is not None:
            stated += rows.classes.get(self.header[columns.label], ())
        self.ordered = bool(stated)
        self.labels = _Codes({name: code for code, name in enumerate(stated)})
        self.folds, self.groups = _Codes(), _Codes()
        self.codes, self.counts = array("i"), array("i")

    def read(self, rows: Iterable[tuple[int, Sequence[Any]]]) -> Table:
        """Return the table of `rows`."""
        columns = self.columns
        names: list[bytes] = []
        lines, splits, weights = array("q"), array("b"), array("f")
        folds, groups = array("i"), array("q")
        line = 0
        try:
            for line, row in rows:
                names.append(_path(row[columns.path]))
                lines.append(line)
                self._add_labels(row)
                if columns.split is not None:
                    splits.append(_split(row[columns.split]))
                if columns.weight is not None:
                    weights.append(_weight(row[columns.weight]))
                if columns.fold is not None:
                    folds.append(self.folds[_text(row[columns.fold], "fold")])
                if columns.group is not None:
                    groups.append(self.groups[_text(row[columns.group], "group")])
        except ValueError as error:
            raise UserError(f"{place(self.path, self.unit, line)}: {error}") from None
        if not names:
            raise UserError(f"{self.path}: holds no rows")
        return Table(
            path=self.path,
            unit=self.unit,
            names=names,
            lines=np.array(lines, np.int64),
            labels=list(self.labels),
            codes=np.array(self.codes, np.int32),
            counts=np.array(self.counts, np.int32),
            several=self.several,
            ordered=self.ordered,
            splits=np.array(splits, np.int8) if columns.split is not None else None,
            weights=np.array(weights, np.float32) if columns.weight is not None else None,
            folds=np.array(folds, np.int32) if columns.fold is not None else None,
            fold_names=list(self.folds),
            groups=_ranks(self.groups)[np.array(groups, np.int64)] if columns.group is not None else None,
        )

    def _add_labels(self, row: Sequence[Any]) -> None:
        """Append the labels of a row.

        Raises:
            ValueError: there is none, or a value is none.
        """
        columns = self.columns
        if columns.label is not None:
            value = row[columns.label]
            if isinstance(value, str) and self.separator is None and value and not value[-1].isspace():
                self.codes.append(self.labels[value])
                self.counts.append(1)
                return
            texts = self._texts(value)
            self.codes.extend(self.labels[text] for text in texts)
            self.counts.append(len(texts))
            return
        count = 0
        for code, position in enumerate(columns.binary):
            value = row[position]
            try:
                present = BINARY[value.strip() if isinstance(value, str) else value]
            except (KeyError, TypeError):
                raise ValueError(
                    f"{self.header[position]} must be 0 or 1, not {value!r}; name the label columns by --label-column"
                ) from None
            if present:
                self.codes.append(code)
                count += 1
        self.counts.append(count)

    def _texts(self, value: Any) -> list[str]:
        if isinstance(value, list):
            self.several = True
            return list(dict.fromkeys(_text(part, "label") for part in value))
        if self.separator is not None:
            parts = () if value is None else str(value).split(self.separator)
            return list(dict.fromkeys(part.strip() for part in parts if part.strip()))
        return [_text(value, "label")]


def _path(value: Any) -> bytes:
    if not isinstance(value, str) or not value or "\0" in value:
        raise ValueError(f"no path but {value!r}" if value else "an empty path")
    if "./" in value or "//" in value:
        value = os.path.normpath(value)
    return os.fsencode(value)


def _text(value: Any, what: str) -> str:
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # as pandas writes whole numbers beside missing ones
    text = "" if value is None or value != value else str(value).strip()
    if not text or isinstance(value, list | dict):
        raise ValueError(f"an empty {what}" if not text else f"a {what} must be text, not {value!r}")
    return text


def _split(value: Any) -> int:
    name = _SPLIT_NAMES.get(str(value).strip().lower())
    if name is None:
        raise ValueError(f"split must be train, val or test, not {value!r}")
    return SPLIT_CODES[name]


def _weight(value: Any) -> float:
    try:
        weight = float(value)
    except (TypeError, ValueError):
        raise ValueError(f"weight must be a number, not {value!r}") from None
    if not 0 <= weight < 1e30:
        raise ValueError(f"weight must be from 0, not {value!r}")
    return weight


def _ranks(codes: _Codes) -> npt.NDArray[np.int64]:
    """Return for each code the position of its text among the sorted ones."""
    position = {text: number for number, text in enumerate(sorted(codes))}
    return np.array([position[text] for text in codes], np.int64)
