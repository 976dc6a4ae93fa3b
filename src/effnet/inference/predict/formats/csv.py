"""Comma-separated values with a line of names; a list is JSON in its cell."""

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from effnet.inference.predict.columns import Column, Rows
from effnet.inference.predict.formats.form import Header, OutputFormat
from effnet.inference.predict.formats.text import append_parts, plain_rows


def _encode(columns: Sequence[Column], rows: Rows) -> bytes:
    return csv_bytes([_cell(value) for value in row] for row in plain_rows(columns, rows))


def _cell(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def csv_bytes(rows: Any) -> bytes:
    """Return rows of texts as UTF-8."""
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()


def _join(columns: Sequence[Column], parts: Sequence[Path], path: Path, _header: Header) -> None:
    with path.open("wb") as file:
        file.write(csv_bytes([[column.name for column in columns]]))
        append_parts(parts, file)


FORMAT = OutputFormat("csv", "Comma-separated values; a list is JSON in its cell", _encode, _join)
