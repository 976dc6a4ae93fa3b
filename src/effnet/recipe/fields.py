"""Dataclass fields that are settings: with flags, a range, and a check of their values."""

import types
import typing
from dataclasses import Field, field
from typing import Any, Literal, TypeVar

from effnet.recipe.numbers import Range, check_file_name, check_text, number, shown
from effnet.runtime.errors import UserError

T = TypeVar("T")


def setting(
    default: T,
    *flags: str,
    low: float | None = None,
    above: float | None = None,
    high: float | None = None,
    below: float | None = None,
    no_limit: int | None = None,
    none_as: str | None = None,
    metavar: str | None = None,
    file_name: bool = False,
) -> T:
    """Return a dataclass field for a setting.

    Args:
        default: value if the setting is not given.
        flags: names of the flag besides the one that follows from the setting's name.
        low, high: bounds of the value, allowed themselves.
        above, below: bounds of the value, not allowed themselves.
        no_limit: number outside the range that means None, as -1 does in NVIDIA's scripts.
        none_as: word that means None.
        metavar: name of the value in the help.
        file_name: the text names a file in a folder that another setting names.
    """
    metadata = {
        "flags": flags,
        "metavar": metavar,
        "no_limit": no_limit,
        "none_as": none_as,
        "file_name": file_name,
        "range": Range(low, above, high, below),
    }
    return field(default=default, metadata=metadata)


def value_type(leaf: Field[Any]) -> tuple[Any, bool]:
    """Return the type of a setting without None, and True if None is allowed."""
    if typing.get_origin(leaf.type) in (types.UnionType, typing.Union):  # `Literal[...] | None` is the latter
        members = [member for member in typing.get_args(leaf.type) if member is not types.NoneType]
        return members[0], True
    return leaf.type, False


def is_list(kind: Any) -> bool:
    """Return True if a setting's type is a tuple of any length, such as ``tuple[str, ...]``."""
    return typing.get_origin(kind) is tuple and typing.get_args(kind)[1] is Ellipsis


def flag_name(leaf: Field[Any]) -> str:
    """Return the flag of a setting, such as ``--batch-size``."""
    return "--" + leaf.name.replace("_", "-")


def checked(leaf: Field[Any], value: Any) -> Any:
    """Return a value in the setting's type.

    Raises:
        UserError: the value has another type or is out of range; the flag is named.
    """
    kind, optional = value_type(leaf)
    if optional and (value is None or value in (leaf.metadata.get("no_limit"), leaf.metadata.get("none_as"))):
        return None
    return _converted(leaf, kind, value)


def range_of(leaf: Field[Any]) -> Range:
    """Return the range of a setting that is a number, or of each number of a tuple."""
    return leaf.metadata.get("range", Range())


def _converted(leaf: Field[Any], kind: Any, value: Any) -> Any:
    flag = flag_name(leaf)
    if typing.get_origin(kind) is Literal:
        if isinstance(value, int) and not isinstance(value, bool):
            value = str(value)  # as YAML reads a name that is a number
        if value not in typing.get_args(kind):
            raise UserError(f"{flag} must be one of {', '.join(typing.get_args(kind))}, not {shown(value)}")
        return value
    if typing.get_origin(kind) is tuple:
        return _converted_tuple(leaf, kind, value)
    try:
        return _scalar(leaf, kind, value)
    except ValueError as error:
        raise UserError(f"{flag} {error}") from None


def _scalar(leaf: Field[Any], kind: Any, value: Any) -> Any:
    if kind is float:
        value = _as_float(value)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise ValueError(f"must be of type {kind.__name__}, not {shown(value)}")
    if kind is str:
        (check_file_name if leaf.metadata.get("file_name") else check_text)(value)
    elif kind is not bool:
        range_of(leaf).check(value)
    return value


def _as_float(value: Any) -> Any:
    """Return whole numbers and the texts that YAML makes of numbers such as 1e-5, without a dot, as float."""
    try:
        if isinstance(value, str):
            return number(value)
        return float(value) if isinstance(value, int) and not isinstance(value, bool) else value
    except (ValueError, OverflowError):
        return value


def _converted_tuple(leaf: Field[Any], kind: Any, value: Any) -> tuple[Any, ...]:
    flag = flag_name(leaf)
    size = len(value) if is_list(kind) and isinstance(value, list | tuple) else len(typing.get_args(kind))
    if not isinstance(value, list | tuple) or len(value) != size:
        raise UserError(
            f"{flag} takes {'a list' if is_list(kind) else f'{size} numbers'}, not {shown(value)}"
        )
    items = tuple(_converted(leaf, typing.get_args(kind)[0], item) for item in value)
    if not is_list(kind) and list(items) != sorted(items):
        raise UserError(f"{flag} takes the lower number first, not {shown(value)}")
    return items
