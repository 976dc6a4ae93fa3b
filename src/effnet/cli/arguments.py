"""Types of arguments, for `argparse`: every number has one notation and a range, and every path can be one."""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

from effnet.recipe import numbers
from effnet.recipe.numbers import Range

T = TypeVar("T")

MOST_PIXELS = 4096
MOST_IMAGES = 65_536
MOST_DECODED = 10**10
MOST_WORKERS = 512
MOST_CLASSES = 1_000_000


@dataclass(frozen=True)
class ArgumentType(Generic[T]):
    """A type of arguments.

    Attributes:
        kind: the kind of value.
        read: returns the value of a text, or raises a ValueError whose message follows the flag's name.
    """

    kind: Literal["integer", "number", "path"]
    read: Callable[[str], T]

    def __call__(self, text: str) -> T:
        """Return the value of a text.

        Raises:
            argparse.ArgumentTypeError: it has none; the parser adds the flag.
        """
        try:
            return self.read(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None


def integer(low: int, high: int) -> ArgumentType[int]:
    """Return the type of whole numbers from `low` to `high`."""

    def read(text: str) -> int:
        value = numbers.integer(text)
        Range(low=low, high=high).check(value)
        return value

    return ArgumentType("integer", read)


def number(high: float, *, low: float | None = None) -> ArgumentType[float]:
    """Return the type of numbers up to `high`: from `low`, or above 0 if it is None."""

    def read(text: str) -> float:
        value = numbers.number(text)
        Range(low, 0 if low is None else None, high).check(value)
        return value

    return ArgumentType("number", read)


def or_word(of: ArgumentType[T], word: str | None) -> ArgumentType[T | str]:
    """Return a type that also takes a word as it is; None for no further word."""
    return ArgumentType(of.kind, lambda text: text if text == word else of.read(text))


def _read_path(text: str) -> str:
    numbers.check_text(text)
    return text


ANY_INTEGER = ArgumentType("integer", numbers.integer)
"""whole numbers whose range is checked later, by the recipe"""
ANY_NUMBER = ArgumentType("number", numbers.number)
"""numbers whose range is checked later, by the recipe"""
path = ArgumentType("path", _read_path)
"""paths to files or folders, and names"""
