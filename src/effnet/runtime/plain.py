"""Plain values out of files that anybody may have written: JSON, YAML, metadata, recipes in checkpoints.

Such a file may be small and yet stand for something huge: lists that hold each other a thousand times over, a number of
a million digits, a thousand brackets. The limits here are far above all that this project writes.
"""

import json
import math
from collections.abc import Mapping

from effnet.runtime.errors import UserError, one_line

_DEEPEST = 32
_LONGEST_INTEGER = 64  # bits
_CHARACTERS = 1_000_000
_OF_A_VALUE = 40  # characters


def parse_json(text: str | bytes, *, characters: int = _CHARACTERS) -> object:
    """Return the value of a JSON text.

    Args:
        text: the text, or its UTF-8.
        characters: see `check_plain`.

    Raises:
        UserError: not JSON, or beyond the limits of `check_plain`; the message says what is wrong, not where.
    """
    try:
        value = json.loads(text)
    except RecursionError:
        raise UserError("JSON that is nested too deeply") from None
    except ValueError as error:
        raise UserError(f"not JSON: {one_line(error)}") from None
    check_plain(value, characters=characters)
    return value


def check_plain(value: object, *, characters: int = _CHARACTERS) -> None:
    """Refuse what is not None, a bool, a number, a text, or a list or mapping of these, within limits.

    Args:
        value: the value. What it holds more than once counts as often as it is held.
        characters: most characters in it, where each value counts as 40 besides its own.

    Raises:
        UserError: another type, a key that is no text, a number that is not finite or has more than 64 bits, more
            than 32 levels, or too many characters; the message says what is wrong, not where.
    """
    left = characters
    pending = [(value, _DEEPEST)]
    while pending:
        item, levels = pending.pop()
        inner = _inner(item)
        left -= len(item) if isinstance(item, str) else _OF_A_VALUE * len(inner)
        if left < 0:
            raise UserError(f"more than {characters:,} characters")
        if inner and not levels:
            raise UserError(f"values nested in more than {_DEEPEST} levels")
        pending += [(part, levels - 1) for part in inner]


def _inner(item: object) -> list[object]:
    """Return the parts of a value; check it if it has none."""
    if isinstance(item, Mapping):
        if other := next((key for key in item if not isinstance(key, str)), None):
            raise UserError(f"a key that is a {type(other).__name__}, not a text")
        return [*item, *item.values()]
    if isinstance(item, list | tuple):
        return list(item)
    _check_single(item)
    return []


def _check_single(item: object) -> None:
    if isinstance(item, float) and not math.isfinite(item):
        raise UserError(f"the number {item}, which is not finite")
    if isinstance(item, int) and item.bit_length() > _LONGEST_INTEGER:
        raise UserError(f"a number of {item.bit_length()} bits")
    if item is not None and type(item) not in (bool, int, float, str):
        raise UserError(f"a {type(item).__name__}, which is no plain value")


def is_number(value: object, low: float, high: float) -> bool:
    """Return True for an int or float, not a bool, from `low` to `high`; NaN is in no range."""
    return isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high


def is_count(value: object, low: int, high: int) -> bool:
    """Return True for an int, not a bool, from `low` to `high`."""
    return isinstance(value, int) and is_number(value, low, high)


def are_names(values: object) -> bool:
    """Return True for a list or tuple of texts, none of them empty or there twice."""
    if not isinstance(values, list | tuple) or not all(isinstance(name, str) and name for name in values):
        return False
    return len(set(values)) == len(values)
