"""Columns of a table of predictions."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

Kind = Literal["text", "integer", "number", "flag", "texts", "numbers"]


@dataclass(frozen=True)
class Column:
    """A column.

    Attributes:
        name: its name.
        kind: of its values: `texts` and `numbers` are lists of any length. Numbers are float32, integers int32.
    """

    name: str
    kind: Kind


Rows: TypeAlias = Mapping[str, Any]
"""values by column: a list, or an array whose first dimension is the row; all of the same length"""
