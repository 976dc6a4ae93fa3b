"""The form of an output format."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from effnet.inference.predict.columns import Column, Rows

Header = Mapping[str, Any]
"""plain values that say where a table comes from"""


@dataclass(frozen=True)
class OutputFormat:
    """A format of a table of predictions. The bytes of a table depend on its rows and parts alone.

    Attributes:
        name: name; a file of the format has it as its suffix.
        summary: one line for the documentation's table.
        encode: returns some rows as the bytes of a part.
        join: writes a table from the files of its parts, in order: (columns, parts, file, header).
        header: returns the header of a table's file; None where the format holds none.
        check: raises a `UserError` where a package is missing.
    """

    name: str
    summary: str
    encode: Callable[[Sequence[Column], Rows], bytes]
    join: Callable[[Sequence[Column], Sequence[Path], Path, Header], None]
    header: Callable[[Path], Header | None] = lambda _path: None
    check: Callable[[], object] = lambda: None
