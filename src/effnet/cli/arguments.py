"""Types of arguments, for `argparse`: every number has a range and every path can be one.

They raise `argparse.ArgumentTypeError`, whose message the parser completes with the name of the flag.
"""

import argparse
from collections.abc import Callable
from typing import TypeVar

from effnet.recipe.numbers import Range, check_text
from effnet.recipe.numbers import integer as read_integer
from effnet.recipe.numbers import number as read_number

T = TypeVar("T")
Number = TypeVar("Number", int, float)

MOST_PIXELS = 4096
MOST_IMAGES = 65_536
MOST_WORKERS = 512
MOST_CLASSES = 1_000_000


def argument(read: Callable[[str], T]) -> Callable[[str], T]:
    """Return `read` as a type of arguments: its ValueError is the flag's.

    Args:
        read: returns the value of a text, or raises a ValueError whose message follows the flag's name.
    """

    def convert(text: str) -> T:
        try:
            return read(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return convert


def integer(low: int, high: int) -> Callable[[str], int]:
    """Return the type of whole numbers from `low` to `high`."""
    return argument(lambda text: _within(Range(low=low, high=high), read_integer(text)))


def number(high: float, *, low: float | None = None) -> Callable[[str], float]:
    """Return the type of numbers up to `high`: from `low`, or above 0 if it is None."""
    allowed = Range(low, 0 if low is None else None, high)
    return argument(lambda text: _within(allowed, read_number(text)))


def path(text: str) -> str:
    """Return the text of a path to a file or folder, or of a name; a type of arguments.

    Raises:
        argparse.ArgumentTypeError: it is empty, too long, or has a zero byte.
    """
    return argument(_checked_text)(text)


def _within(allowed: Range, value: Number) -> Number:
    allowed.check(value)
    return value


def _checked_text(text: str) -> str:
    check_text(text)
    return text
