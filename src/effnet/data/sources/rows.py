"""Rows of a table file, one after the other: CSV, JSON lines, Parquet."""

import csv
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from effnet.runtime.errors import UserError, one_line

Row = tuple[int, Sequence[Any]]
"""number of the line, and a value for each column: text, a number, a list, or None"""

_LONGEST_FIELD = 1 << 24
_DELIMITERS = ",;\t"


@dataclass(frozen=True)
class Rows:
    """The rows of a table.

    Attributes:
        columns: names of the columns.
        read: returns the rows; given positions of columns, others may be None.
        unit: what the number of a row counts: `line` or `row`.
        classes: names of the classes of a column whose type states them, in their order.
    """

    columns: list[str]
    read: Callable[[Sequence[int]], Iterator[Row]]
    unit: str = "line"
    classes: Mapping[str, Sequence[str]] = field(default_factory=dict)


def open_rows(path: Path) -> Rows:
    """Open a table by its suffix.

    Raises:
        UserError: it can't be read, or has no columns. Reading raises it for a damaged row; file and line are named.
    """
    try:
        rows = _FORMATS[path.suffix.lower()](path)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
    if not rows.columns:
        raise UserError(f"{path}: holds no rows")
    if twice := [name for name in rows.columns if rows.columns.count(name) > 1]:
        raise UserError(f"{path}: the column {twice[0]} twice")
    return rows


def _csv(path: Path) -> Rows:
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        first = file.readline()
    # The header has the delimiter that it has most of; a comma where there is one column.
    delimiter = max(_DELIMITERS, key=lambda character: (first.count(character), character == ","))
    columns = [name.strip() for name in next(csv.reader([first], delimiter=delimiter), [])]

    def read(wanted: Sequence[int]) -> Iterator[Row]:
        csv.field_size_limit(_LONGEST_FIELD)
        with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            reader = csv.reader(file, delimiter=delimiter, skipinitialspace=True)
            try:
                next(reader)
                for row in reader:
                    if len(row) == len(columns):
                        yield reader.line_num, row
                    elif row:
                        raise UserError(
                            f"{path}:{reader.line_num}: {len(row)} values for {len(columns)} columns"
                        )
            except csv.Error as error:
                raise UserError(f"{path}:{reader.line_num}: {one_line(error)}") from None

    return Rows(columns, read)


def _json_lines(path: Path) -> Rows:
    def objects() -> Iterator[tuple[int, dict[str, Any]]]:
        with path.open(encoding="utf-8-sig", errors="surrogateescape") as file:
            for line, text in enumerate(file, start=1):
                if text.isspace():
                    continue
                try:
                    content = json.loads(text)
                except (ValueError, RecursionError) as error:
                    raise UserError(f"{path}:{line}: no JSON: {one_line(error)}") from None
                if not isinstance(content, dict):
                    raise UserError(f"{path}:{line}: each line must hold one JSON object")
                yield line, content

    columns = list(next(objects(), (0, {}))[1])

    def read(wanted: Sequence[int]) -> Iterator[Row]:
        for line, content in objects():
            yield line, [content.get(name) for name in columns]

    return Rows(columns, read)


def _parquet(path: Path) -> Rows:
    from effnet.data.sources.parquet import open_parquet  # an optional package

    columns, read = open_parquet(path)
    return Rows(columns, read, "row")


_FORMATS: dict[str, Callable[[Path], Rows]] = {
    ".csv": _csv,
    ".tsv": _csv,
    ".jsonl": _json_lines,
    ".ndjson": _json_lines,
    ".json": _json_lines,
    ".parquet": _parquet,
}
SUFFIXES = tuple(_FORMATS)
"""of files that are tables"""
