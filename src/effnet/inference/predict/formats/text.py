"""Values and files that the text formats share: a number is as short as float32 allows."""

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from effnet.inference.predict.columns import Column, Rows


def append_parts(parts: Sequence[Path], file: IO[bytes]) -> None:
    """Write the contents of files one after the other."""
    for part in parts:
        with part.open("rb") as content:
            shutil.copyfileobj(content, file)


def plain_rows(columns: Sequence[Column], rows: Rows) -> Iterator[tuple[Any, ...]]:
    """Yield each row as str, int, float, bool, and lists of these."""
    return zip(*(_plain(column, rows[column.name]) for column in columns), strict=True)


def _plain(column: Column, values: Any) -> list[Any]:
    if column.kind == "number":
        return [_shortest(value) for value in values]
    if column.kind == "numbers":
        return [[_shortest(value) for value in row] for row in values]
    return values.tolist() if isinstance(values, np.ndarray) else list(values)


def _shortest(value: np.float32) -> float:
    """Return the number of fewest digits among those that float32 does not tell from `value`."""
    return float(str(np.float32(value)))
