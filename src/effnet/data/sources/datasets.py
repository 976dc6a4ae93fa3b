"""A folder that Hugging Face `datasets` has saved: its rows are those of a table whose column of paths holds images."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from effnet.data.image_files import Targets
from effnet.data.saved_datasets import SavedImages, SavedTable, is_saved_dataset, joined, open_saved
from effnet.data.sources.columns import LABELS, TableSettings
from effnet.data.sources.form import UNSPLIT, Labels, Listing, Source, SourceRequest
from effnet.data.sources.rows import Row, Rows
from effnet.data.sources.table import find_table_labels, list_table
from effnet.data.sources.table_reader import Table, table_of
from effnet.runtime.errors import UserError


@lru_cache(maxsize=1)  # a run asks for the classes before it asks for the images
def _opened(path: Path, version: int) -> dict[str, SavedTable]:
    return open_saved(path)


def _found(request: SourceRequest) -> dict[str, SavedTable]:
    """Return the data sets by split; a single one under `UNSPLIT`.

    Raises:
        UserError: there is none for a split asked for.
    """
    found = _opened(request.path, request.path.stat().st_mtime_ns)
    if UNSPLIT not in found and not request.for_check:
        for split in request.splits:
            if split not in found:
                raise UserError(f"{request.path}: holds no data set for {split}, only {', '.join(found)}")
    return found


def _settings(saved: SavedTable, settings: TableSettings) -> TableSettings:
    """Name the columns of images and labels that their types tell."""
    images, columns = saved.image_columns(), saved.rows.column_names
    if settings.path_column is None and len(images) == 1:
        settings = replace(settings, path_column=images[0])
    if settings.path_column is None:
        raise UserError(
            f"{saved.place}: which of {', '.join(columns)} holds the images? name it by --path-column"
        )
    of_classes = [name for name in columns if saved.class_names(name)]
    usual = any(name.lower() in LABELS for name in columns)
    if settings.label_column is None and not usual and len(of_classes) == 1:
        settings = replace(settings, label_column=of_classes[0])
    return settings


def _table(saved: SavedTable, request: SourceRequest, *, needs_labels: bool = True) -> tuple[Table, str]:
    """Return the rows of a data set as a table, and the name of its column of images."""
    settings = _settings(saved, TableSettings.of(request.settings))
    columns, image = list(saved.rows.column_names), str(settings.path_column)

    def read(wanted: Sequence[int]) -> Iterator[Row]:
        names = [columns[position] for position in wanted if columns[position] != image]
        values = saved.read(names) if names else ([] for _ in range(len(saved.rows)))
        for number, row in enumerate(values):
            cells: dict[str, Any] = dict(zip(names, row, strict=True))
            cells[image] = f"{number:012d}"  # names that are ordered as the rows are
            yield number, [cells.get(name) for name in columns]

    rows = Rows(columns, read, "row", {name: saved.class_names(name) for name in columns})
    return table_of(saved.place, rows, settings, needs_labels=needs_labels), image


def _images(
    saved: SavedTable,
    column: str,
    max_pixels: int,
    table: Table,
    classes: list[str],
    targets: Targets,
    rows: npt.NDArray[np.int64],
) -> SavedImages:
    weights = None if table.weights is None else table.weights[rows]
    version = str(saved.rows._fingerprint)
    images = saved.images(column)
    return SavedImages(
        saved.place, classes, targets, rows, images, column, version, max_pixels=max_pixels, weights=weights
    )


def _labels(request: SourceRequest) -> Labels:
    found = _found(request)  # the first is the only one, or that for training
    return find_table_labels(_table(next(iter(found.values())), request)[0], request)


def _list(request: SourceRequest) -> Listing:
    found, limit = _found(request), request.settings.max_pixels
    if UNSPLIT in found:
        table, column = _table(found[UNSPLIT], request)
        return list_table(table, request, partial(_images, found[UNSPLIT], column, limit))
    classes = list(request.classes or _labels(request).classes)
    images = {}
    for split in found if request.for_check else request.splits:
        table, column = _table(found[split], request)
        table = replace(table, splits=None, folds=None)
        wanted = replace(request, classes=None if request.for_check else classes)
        listing = list_table(table, wanted, partial(_images, found[split], column, limit))
        images[split] = listing.images[UNSPLIT]
    return Listing(classes, images)


def _list_all(request: SourceRequest) -> SavedImages:
    saved = joined(request.path, list(_opened(request.path, request.path.stat().st_mtime_ns).values()))
    table, column = _table(saved, request, needs_labels=False)
    rows = np.arange(len(table.names))
    targets = np.full(len(rows), -1, np.int32)
    return _images(saved, column, request.settings.max_pixels, table, sorted(table.labels), targets, rows)


SOURCE = Source(
    "datasets",
    "A folder of Hugging Face `datasets`, from `save_to_disk` (extra `datasets`)",
    is_saved_dataset,
    _labels,
    _list,
    _list_all,
)
