"""Text that others wrote, such as file names, on a terminal and in JSON."""

import json
import math
import re
from typing import Any

# Control characters, direction marks and line separators; then what stands for bytes that are not UTF-8.
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_BYTES = range(0xDC80, 0xDD00)


def printable(text: object) -> str:
    r"""Return a text on one line, in which what a terminal would obey is escaped as in Python: ``\x1b``, ``\n``.

    Bytes that are not UTF-8, which Python keeps in a file name as surrogates, become ``\xff`` and the like.
    """
    return _UNPRINTABLE.sub(_escaped, str(text))


def _escaped(match: re.Match[str]) -> str:
    number = ord(match[0])
    if number in _BYTES:
        return f"\\x{number - 0xDC00:02x}"
    return match[0].encode("unicode_escape").decode("ascii")


def to_json(value: Any, indent: int | None = None) -> str:
    """Return a value as strict JSON in ASCII, in which NaN and infinity, which JSON lacks, are strings.

    A string is restored exactly by parsing, also where a file name has bytes that are not UTF-8.

    Args:
        value: str, int, float, bool, None, and dicts, lists and tuples of them.
        indent: spaces by which nested values are set in, each on a line of its own [default: one line].
    """
    return json.dumps(_finite(value), indent=indent, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return str(float(value))
    if isinstance(value, dict):
        return {name: _finite(entry) for name, entry in value.items()}
    return [_finite(entry) for entry in value] if isinstance(value, list | tuple) else value
