"""Tables of paths and labels: CSV, JSON lines, Parquet."""

import difflib
import logging
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from effnet.data.image_files import ImageFiles, Targets, image_list
from effnet.data.sources.columns import TableSettings
from effnet.data.sources.form import UNSPLIT, Labels, Listing, Source, SourceImages, SourceRequest
from effnet.data.sources.rows import SUFFIXES
from effnet.data.sources.table_reader import SPLIT_CODES, Table, forget_table, read_table
from effnet.recipe import DataSettings
from effnet.runtime.errors import UserError

_log = logging.getLogger(__name__)
_FEW = 16  # files of a folder that are looked for one by one, not by listing it


Build = Callable[[Table, list[str], Targets, npt.NDArray[np.int64]], SourceImages]
"""returns the images of rows (N,), given the table, the class names and the targets (N,) of these rows"""


def _assigned(table: Table, settings: DataSettings) -> npt.NDArray[np.int8] | None:
    """Return the split of each row by ``--fold`` or the column of splits; None without either."""
    if settings.fold is None or table.folds is None:
        return table.splits
    wanted = str(settings.fold)
    if settings.folds is not None:
        names = sorted(table.fold_names, key=lambda name: (len(name), name))  # 10 after 9
        if len(names) != settings.folds or settings.fold >= settings.folds:
            raise UserError(
                f"--folds {settings.folds}: {table.path} has {len(names)} folds, {', '.join(names)}; give their "
                "number, and --fold from 0"
            )
        wanted = names[settings.fold]
    if wanted not in table.fold_names:
        raise UserError(f"--fold {wanted}: {table.path} has the folds {', '.join(sorted(table.fold_names))}")
    assigned = (table.folds == table.fold_names.index(wanted)).astype(np.int8)
    if table.splits is not None:
        assigned[table.splits == SPLIT_CODES["test"]] = SPLIT_CODES["test"]
    return assigned


def _labels_of(table: Table, assigned: npt.NDArray[np.int8] | None) -> list[str]:
    """Return the class names: those of the training rows, or of validation where it stands alone."""
    if assigned is None:
        return _labels_at(table, np.ones(len(table.names), np.bool_))
    in_train = assigned == SPLIT_CODES["train"]
    return _labels_at(table, in_train if in_train.any() else assigned == SPLIT_CODES["val"])


def _labels_at(table: Table, rows: npt.NDArray[np.bool_]) -> list[str]:
    """Return the sorted labels of some rows; those that are columns in the order of the columns."""
    if table.ordered:
        return table.labels
    codes = np.unique(table.codes[np.repeat(rows, table.counts)])
    return sorted(table.labels[code] for code in codes.tolist())


def _find_labels(request: SourceRequest) -> Labels:
    table = read_table(request.path, TableSettings.of(request.settings))
    return find_table_labels(table, request)


def find_table_labels(table: Table, request: SourceRequest) -> Labels:
    """Return the labels of a table."""
    return Labels(_labels_of(table, _assigned(table, request.settings)), table.several)


def _list(request: SourceRequest) -> Listing:
    table = read_table(request.path, TableSettings.of(request.settings))
    forget_table()
    return list_table(table, request, partial(_images, request))


def list_table(table: Table, request: SourceRequest, build: Build) -> Listing:
    """Return the listing of a table, by its columns of splits and folds.

    Args:
        table: the rows.
        request: the request.
        build: makes the images of rows.

    Raises:
        UserError: a label that is no class, or a fold that is not there.
    """
    assigned = _assigned(table, request.settings)
    classes = list(request.classes or _labels_of(table, assigned))
    if assigned is None:
        order, targets = _ordered_targets(table, classes, np.arange(len(table.names)))
        groups = None if table.groups is None else table.groups[order]
        return Listing(classes, {UNSPLIT: build(table, classes, targets, order)}, groups)
    by_split = {split: np.flatnonzero(assigned == SPLIT_CODES[split]) for split in request.splits}
    _warn_of_leaks(table, by_split)
    images = {}
    for split, rows in by_split.items():
        if request.for_check:
            classes = _labels_at(table, assigned == SPLIT_CODES[split])
        order, targets = _ordered_targets(table, classes, rows)
        images[split] = build(table, classes, targets, order)
    return Listing(classes, images, by_fold=request.settings.fold is not None and table.folds is not None)


def _ordered_targets(
    table: Table, classes: list[str], rows: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], Targets]:
    """Return rows ordered by class and name, and their targets.

    Raises:
        UserError: a label that is no class.
    """
    positions = {name: position for position, name in enumerate(classes)}
    position_of = np.array([positions.get(name, -1) for name in table.labels], np.int32)
    _check_known(table, position_of, rows, classes)
    order = _ordered(table, rows)
    if table.several:
        return order, _multi_hot(table, position_of, order, len(classes))
    return order, position_of[table.codes[order]]


def _images(
    request: SourceRequest, table: Table, classes: list[str], targets: Targets, rows: npt.NDArray[np.int64]
) -> ImageFiles:
    names = [table.names[row] for row in rows.tolist()]
    root = Path(request.settings.root) if request.settings.root is not None else request.path.parent
    if not request.for_check:
        _check_present(table, root, rows, names)
    return image_list(
        root,
        classes,
        targets,
        names,
        max_pixels=request.settings.max_pixels,
        weights=None if table.weights is None else table.weights[rows],
    )


def _ordered(table: Table, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return rows in the order of a folder of classes: by the class's name, then the image's."""
    names = [table.names[row] for row in rows.tolist()]
    order = rows[np.array(sorted(range(len(names)), key=names.__getitem__), np.int64)]
    if table.several:
        return order
    position = {label: number for number, label in enumerate(sorted(table.labels))}
    rank = np.array([position[label] for label in table.labels], np.int64)
    return order[np.argsort(rank[table.codes[order]], kind="stable")]


def _multi_hot(
    table: Table,
    position_of: npt.NDArray[np.int32],
    order: npt.NDArray[np.int64],
    classes: int,
) -> npt.NDArray[np.uint8]:
    targets = np.zeros((len(table.names), classes), np.uint8)
    image = np.repeat(np.arange(len(table.names)), table.counts)
    positions = position_of[table.codes]
    known = positions >= 0
    targets[image[known], positions[known]] = 1
    return targets[order]


def _check_known(
    table: Table,
    position_of: npt.NDArray[np.int32],
    rows: npt.NDArray[np.int64],
    classes: list[str],
) -> None:
    """Refuse a row with a label that is no class."""
    unknown = position_of[table.codes] < 0
    if not unknown.any():
        return
    image = np.repeat(np.arange(len(table.names)), table.counts)
    bad = np.flatnonzero(unknown & np.isin(image, rows))
    if len(bad):
        name = table.labels[table.codes[bad[0]]]
        near = difflib.get_close_matches(name, classes, n=1)
        raise UserError(
            f"{table.where(int(image[bad[0]]))}: no class {name} among the {len(classes)} of the training rows or "
            f"the model{f'; did you mean {near[0]}?' if near else ''}"
        )


def _check_present(table: Table, root: Path, order: npt.NDArray[np.int64], names: list[bytes]) -> None:
    """Refuse a row whose file is not there; folders of many are listed, which asks less of a network file system."""
    base = os.fsencode(root)
    folders: dict[bytes, list[tuple[bytes, int]]] = {}
    for path, row in zip(names, order.tolist(), strict=True):
        folder, _, name = path.rpartition(b"/")
        folders.setdefault(folder if folder or not path.startswith(b"/") else b"/", []).append((name, row))
    for folder, files in folders.items():
        where = os.path.join(base, folder)
        if len(files) <= _FEW:
            missing = [row for name, row in files if not os.path.exists(os.path.join(where, name))]
        else:
            try:
                present = set(os.listdir(where))
            except OSError:
                present = set()
            missing = [row for name, row in files if name not in present]
        if missing:
            first = min(missing)
            raise UserError(
                f"{table.where(first)}: no such file {os.fsdecode(os.path.join(base, table.names[first]))}; "
                "paths start from the table's folder, or from --root"
            )


def _warn_of_leaks(table: Table, by_split: dict[str, npt.NDArray[np.int64]]) -> None:
    """Warn of a path that is in both splits."""
    if len(by_split) < 2:
        return
    in_train = {table.names[row] for row in by_split["train"].tolist()}
    both = [row for row in by_split["val"].tolist() if table.names[row] in in_train]
    if both:
        more = f" and {len(both) - 1:,} more" if len(both) > 1 else ""
        _log.warning(
            "%s: %s both for training and for validation, which then measures what was learnt by heart",
            *(table.where(both[0]), os.fsdecode(table.names[both[0]]) + more),
        )


def _list_all(request: SourceRequest) -> ImageFiles:
    table = read_table(request.path, TableSettings.of(request.settings), needs_labels=False)
    forget_table()
    root = Path(request.settings.root) if request.settings.root is not None else request.path.parent
    no_targets = np.full(len(table.names), -1, np.int32)
    return image_list(
        root, sorted(table.labels), no_targets, table.names, max_pixels=request.settings.max_pixels
    )


SOURCE = Source(
    "table",
    "A CSV, JSON lines or Parquet file of paths and labels (extra `tables` for Parquet)",
    lambda path: path.suffix.lower() in SUFFIXES and not path.is_dir(),
    _find_labels,
    _list,
    _list_all,
)
