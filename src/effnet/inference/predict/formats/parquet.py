"""Parquet, by pyarrow; parts are Arrow files."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from effnet.inference.predict.columns import Column, Rows
from effnet.inference.predict.formats.form import Header, OutputFormat
from effnet.runtime.errors import UserError
from effnet.runtime.extras import install_command

_KEY = b"effnet"
_ROW_GROUP_BYTES = 1 << 24
"""bytes in memory from which on parts that follow each other are written as a row group"""


def _pyarrow() -> Any:
    try:
        import pyarrow.ipc
        import pyarrow.parquet
    except ImportError:
        raise UserError(
            f"pyarrow is not installed: {install_command('tables')}; or write .csv or .jsonl"
        ) from None
    return pyarrow


def _schema(arrow: Any, columns: Sequence[Column], header: Header | None = None) -> Any:
    types = {
        "text": arrow.string(),
        "integer": arrow.int32(),
        "number": arrow.float32(),
        "flag": arrow.bool_(),
        "texts": arrow.list_(arrow.string()),
        "numbers": arrow.list_(arrow.float32()),
    }
    fields = [arrow.field(column.name, types[column.kind], nullable=False) for column in columns]
    return arrow.schema(fields, None if header is None else {_KEY: json.dumps(header)})


def _encode(columns: Sequence[Column], rows: Rows) -> bytes:
    arrow = _pyarrow()
    schema = _schema(arrow, columns)
    arrays = [_array(arrow, field.type, rows[field.name]) for field in schema]
    sink = arrow.BufferOutputStream()
    with arrow.ipc.new_file(sink, schema) as writer:
        writer.write_table(arrow.table(arrays, schema=schema))
    return bytes(sink.getvalue())


def _array(arrow: Any, kind: Any, values: Any) -> Any:
    if isinstance(values, np.ndarray) and values.ndim == 2:
        rows, length = values.shape
        starts = arrow.array(np.arange(rows + 1, dtype=np.int32) * length)
        return arrow.ListArray.from_arrays(starts, arrow.array(values.reshape(-1)), type=kind)
    return arrow.array(values, type=kind)


def _join(columns: Sequence[Column], parts: Sequence[Path], path: Path, header: Header) -> None:
    arrow = _pyarrow()
    schema = _schema(arrow, columns, header)
    # A list's values have a path in Parquet.
    repeated = [column.name for column in columns if column.kind == "text"]
    repeated += [f"{column.name}.list.element" for column in columns if column.kind == "texts"]
    with arrow.parquet.ParquetWriter(path, schema, compression="zstd", use_dictionary=repeated) as writer:
        for table in _row_groups(arrow, schema, parts):
            writer.write_table(table, row_group_size=len(table))


def _row_groups(arrow: Any, schema: Any, parts: Sequence[Path]) -> Iterator[Any]:
    gathered: list[Any] = []
    for part in parts:
        with arrow.OSFile(str(part)) as file:
            table = arrow.ipc.open_file(file).read_all()
        if len(table):
            gathered.append(table.replace_schema_metadata(schema.metadata))
        if sum(each.nbytes for each in gathered) >= _ROW_GROUP_BYTES:
            yield arrow.concat_tables(gathered).combine_chunks()
            gathered.clear()
    if gathered:
        yield arrow.concat_tables(gathered).combine_chunks()


def _header(path: Path) -> Header | None:
    arrow = _pyarrow()
    try:
        found = json.loads((arrow.parquet.read_schema(path).metadata or {}).get(_KEY, b"null"))
    except (OSError, ValueError):
        return None  # not one of ours
    return found if isinstance(found, dict) else None


FORMAT = OutputFormat(
    "parquet",
    "Parquet, with the extra `tables`; with its origin as metadata",
    _encode,
    _join,
    _header,
    _pyarrow,
)
