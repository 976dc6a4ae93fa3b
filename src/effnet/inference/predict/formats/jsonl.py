"""JSON lines: one JSON object per line."""

import json
from collections.abc import Sequence
from pathlib import Path

from effnet.inference.predict.columns import Column, Rows
from effnet.inference.predict.formats.form import Header, OutputFormat
from effnet.inference.predict.formats.text import append_parts, plain_rows


def _encode(columns: Sequence[Column], rows: Rows) -> bytes:
    names = [column.name for column in columns]
    lines = (
        json.dumps(dict(zip(names, row, strict=True)), ensure_ascii=False)
        for row in plain_rows(columns, rows)
    )
    return "".join(f"{line}\n" for line in lines).encode()


def _join(_columns: Sequence[Column], parts: Sequence[Path], path: Path, _header: Header) -> None:
    with path.open("wb") as file:
        append_parts(parts, file)


FORMAT = OutputFormat("jsonl", "One JSON object per line", _encode, _join)
