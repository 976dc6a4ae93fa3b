"""Rows of a Parquet file, by pyarrow."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from effnet.runtime.errors import UserError, one_line
from effnet.runtime.extras import install_command

try:
    from pyarrow import ArrowException
    from pyarrow.parquet import ParquetFile
except ImportError:
    raise UserError(f"a Parquet file is read by pyarrow: {install_command('tables')}") from None

_AT_ONCE = 16_384  # rows decoded at a time


def open_parquet(
    path: Path,
) -> tuple[list[str], Callable[[Sequence[int]], Iterator[tuple[int, Sequence[Any]]]]]:
    """Return the columns of a file, and a function that reads its rows, counted from 1.

    Raises:
        UserError: it is no Parquet file, or is damaged; reading raises it too.
    """
    try:
        with ParquetFile(path) as file:
            columns = list(file.schema_arrow.names)
    except (ArrowException, OSError) as error:
        raise _damaged(path, error) from None

    def read(wanted: Sequence[int]) -> Iterator[tuple[int, Sequence[Any]]]:
        number, absent = 0, [None] * len(columns)
        try:
            with ParquetFile(path) as file:
                names = [columns[position] for position in wanted]
                for batch in file.iter_batches(_AT_ONCE, columns=names):
                    parts: list[Sequence[Any]] = [absent] * len(columns)
                    for position, column in zip(wanted, batch.columns, strict=True):
                        parts[position] = column.to_pylist()
                    count = batch.num_rows
                    parts = [[None] * count if part is absent else part for part in parts]
                    for values in zip(*parts, strict=True):
                        number += 1
                        yield number, values
        except (ArrowException, OSError) as error:
            raise _damaged(path, error) from None

    return columns, read


def _damaged(path: Path, error: Exception) -> UserError:
    return UserError(f"{path}: {getattr(error, 'strerror', None) or one_line(error)}")
