"""Curves of one line of text."""

import math
from collections.abc import Sequence

BLOCKS = "▁▂▃▄▅▆▇█"
ASCII = "_.-=+*#@"
"""levels for a terminal whose encoding lacks blocks"""


def sparkline(values: Sequence[float | None], width: int, levels: str = BLOCKS) -> str:
    """Return a curve: one character for each value, or the mean of several where there are more than columns.

    Args:
        values: in order; None and values that are not finite leave a space.
        width: columns at most.
        levels: characters from the lowest to the highest value.
    """
    columns = _means(values, width)
    known = [value for value in columns if value is not None]
    if not known:
        return ""
    low, high = min(known), max(known)
    return "".join(
        " " if value is None else levels[_level(value, low, high, len(levels))] for value in columns
    )


def _level(value: float, low: float, high: float, levels: int) -> int:
    if high <= low:
        return levels // 2  # a constant is drawn in the middle
    return min(levels - 1, int(levels * (value - low) / (high - low)))


def _means(values: Sequence[float | None], width: int) -> list[float | None]:
    """Return the mean of the finite values of each column."""
    count = min(width, len(values))
    columns: list[float | None] = []
    for column in range(count):
        part = values[column * len(values) // count : (column + 1) * len(values) // count]
        finite = [value for value in part if value is not None and math.isfinite(value)]
        columns.append(math.fsum(finite) / len(finite) if finite else None)
    return columns
