"""Numbers and names as a user writes them: one notation, ranges, and messages that stay short."""

import math
import os
import re
import reprlib
from dataclasses import dataclass

_INTEGER = re.compile(r"[+-]?[0-9]+")
_DECIMAL = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_MOST_DIGITS = 40
# Linux's PATH_MAX with the final zero, and NAME_MAX, in bytes.
_LONGEST_PATH, _LONGEST_NAME = 4095, 255

_short = reprlib.Repr()
_short.maxstring = _short.maxother = 60


def shown(value: object) -> str:
    """Return a value as Python writes it, cut to a length that suits a message."""
    return number_shown(value) if isinstance(value, int | float) else _short.repr(value)


def number_shown(value: float) -> str:
    """Return a number as it suits a message: whole ones in full up to 40 digits, others with 6."""
    if not isinstance(value, int):
        return f"{value:g}"
    return str(value) if abs(value) < 10**_MOST_DIGITS else "a number of more than 40 digits"


def integer(text: str) -> int:
    """Read a whole number: decimal ASCII digits with an optional sign, without blanks, ``_``, ``.`` or exponent.

    Raises:
        ValueError: any other text; the message ends a sentence that begins with the flag.
    """
    if not _INTEGER.fullmatch(text) or len(text) > _MOST_DIGITS:
        raise ValueError(f"must be a whole number such as 100, not {shown(text)}")
    return int(text)


def number(text: str) -> float:
    """Read a finite number in decimal notation, with an exponent or without, such as ``0.1`` or ``1e-5``.

    Raises:
        ValueError: any other text; the message ends a sentence that begins with the flag.
    """
    value = float(text) if _DECIMAL.fullmatch(text) else math.nan
    if not math.isfinite(value):
        raise ValueError(f"must be a finite number such as 0.1 or 1e-5, not {shown(text)}")
    return value


@dataclass(frozen=True)
class Range:
    """The range of a number. A bound that is None does not exist; infinity and NaN are in no range.

    Attributes:
        low, high: bounds that are allowed themselves.
        above, below: bounds that are not.
    """

    low: float | None = None
    above: float | None = None
    high: float | None = None
    below: float | None = None

    def check(self, value: float) -> None:
        """Refuse a number outside the range.

        Raises:
            ValueError: the message ends a sentence that begins with the flag.
        """
        if not (math.isfinite(value) if isinstance(value, float) else True) or not self._holds(value):
            raise ValueError(f"must be {self._words()}, not {number_shown(value)}")

    def _holds(self, value: float) -> bool:
        return (
            (self.low is None or value >= self.low)
            and (self.above is None or value > self.above)
            and (self.high is None or value <= self.high)
            and (self.below is None or value < self.below)
        )

    def _words(self) -> str:
        words = {"at least": self.low, "above": self.above, "at most": self.high, "below": self.below}
        given = [f"{word} {number_shown(bound)}" for word, bound in words.items() if bound is not None]
        return " and ".join(given) or "finite"


def check_text(text: str) -> None:
    """Refuse a text that can't be a path or a name: empty, with a zero byte, or longer than the system allows.

    Raises:
        ValueError: the message ends a sentence that begins with the flag.
    """
    if not text:
        raise ValueError("must not be empty")
    try:
        encoded = os.fsencode(text)
    except UnicodeEncodeError:
        raise ValueError(f"must be text that can be encoded, not {shown(text)}") from None
    if b"\0" in encoded:
        raise ValueError(f"must not contain a zero byte: {shown(text)}")
    names = [] if "://" in text else encoded.split(b"/")
    if len(encoded) > _LONGEST_PATH or any(len(name) > _LONGEST_NAME for name in names):
        raise ValueError(
            f"must have at most {_LONGEST_PATH} bytes, and {_LONGEST_NAME} between slashes: {shown(text)}"
        )


def check_file_name(text: str) -> None:
    """Refuse a text that is not the name of a file in a folder, such as one with a slash.

    Raises:
        ValueError: the message ends a sentence that begins with the flag.
    """
    check_text(text)
    if "/" in text or text in (".", ".."):
        raise ValueError(f"must be the name of a file, without a folder, not {shown(text)}")
