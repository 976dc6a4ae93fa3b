"""The meaning of a table's columns: path, labels, split, weight, fold and group."""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from effnet.data.sources.rows import Rows
from effnet.recipe import DataSettings
from effnet.runtime.errors import UserError

# Names that are taken for a column that no flag names, the first that is there.
_PATHS = ("path", "filepath", "file_path", "filename", "file_name", "file", "image_path", "image")
LABELS = ("label", "labels", "class", "class_name", "category", "target")
"""names that are taken for the column of labels"""
_SPLITS, _WEIGHTS, _FOLDS = ("split",), ("weight",), ("fold",)

BINARY = {
    value: bool(value) for value in (0, 1)  # also True and False, 0.0 and 1.0, which equal these
} | {text: text in ("1", "1.0", "true", "True", "TRUE") for text in (
    "0", "1", "0.0", "1.0", "false", "true", "False", "True", "FALSE", "TRUE"
)}  # fmt: skip
"""values of a column that stands for one label"""


@dataclass(frozen=True)
class TableSettings:
    """The settings that decide what a table says."""

    path_column: str | None = None
    label_column: str | None = None
    split_column: str | None = None
    weight_column: str | None = None
    fold_column: str | None = None
    group_column: str | None = None
    label_separator: str | None = None

    @classmethod
    def of(cls, settings: DataSettings) -> "TableSettings":
        """Return those of a recipe's data settings."""
        return cls(**{name: getattr(settings, name) for name in cls.__dataclass_fields__})


@dataclass(frozen=True)
class Columns:
    """Positions of the columns in a row; None for one that is not there."""

    path: int
    label: int | None
    """column of the label, or of all labels of an image"""
    binary: tuple[int, ...]
    """columns of 0 and 1, one for each label, in place of `label`"""
    split: int | None
    weight: int | None
    fold: int | None
    group: int | None

    @property
    def used(self) -> list[int]:
        """Return the positions of all columns that are read."""
        single = (self.path, self.label, self.split, self.weight, self.fold, self.group)
        return sorted({position for position in (*single, *self.binary) if position is not None})


def find_columns(path: Path, rows: Rows, settings: TableSettings, *, needs_labels: bool = True) -> Columns:
    """Return the columns that flags name, and of the others those with the usual names.

    Args:
        path: the table, for messages.
        rows: its rows; the first tells columns of 0 and 1.
        settings: names of columns.
        needs_labels: a table without labels is an error.

    Raises:
        UserError: a column that is named, or needed, is not there.
    """
    names = rows.columns

    def find(flag: str, named: str | None, usual: Sequence[str]) -> int | None:
        if named is not None:
            return _named(path, names, flag, named)
        lower = [name.lower() for name in names]
        return next((lower.index(name) for name in usual if name in lower), None)

    found = find("--path-column", settings.path_column, _PATHS)
    if found is None:
        raise UserError(f"{path}: which of {', '.join(names)} holds the paths? name it by --path-column")
    split = find("--split-column", settings.split_column, _SPLITS)
    weight = find("--weight-column", settings.weight_column, _WEIGHTS)
    fold = find("--fold-column", settings.fold_column, _FOLDS)
    group = find("--group-column", settings.group_column, ())
    label: int | None = None
    binary: tuple[int, ...] = ()
    several = (settings.label_column or "").split(",")
    if settings.label_column is not None and len(several) > 1 and settings.label_column not in names:
        binary = tuple(_named(path, names, "--label-column", name.strip()) for name in several)
    else:
        label = find("--label-column", settings.label_column, LABELS)
    if label is None and not binary:
        binary = _binary(rows, {found, split, weight, fold, group})
    if label is None and not binary and needs_labels:
        raise UserError(f"{path}: which of {', '.join(names)} holds the labels? name it by --label-column")
    return Columns(found, label, binary, split, weight, fold, group)


def _named(path: Path, names: Sequence[str], flag: str, name: str) -> int:
    if name in names:
        return names.index(name)
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean {near[0]}?" if near else f"it has {', '.join(names)}"
    raise UserError(f"{flag} {name}: {path} has no such column; {hint}")


def _binary(rows: Rows, taken: set[int | None]) -> tuple[int, ...]:
    """Return the columns beside those taken whose first value is 0 or 1."""
    free = [position for position in range(len(rows.columns)) if position not in taken]
    _, first = next(rows.read(free), (0, ()))
    return tuple(position for position in free if first and _is_binary(first[position]))


def _is_binary(value: Any) -> bool:
    return isinstance(value, str | int | float) and value in BINARY
