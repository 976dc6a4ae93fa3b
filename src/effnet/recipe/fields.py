"""Dataclass fields that are settings: with flags, a range, and a check of their values."""

import types
import typing
from dataclasses import Field, field
from typing import Any, Literal, TypeVar

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
    metavar: str | None = None,
) -> T:
    """Return a dataclass field for a setting.

    Args:
        default: value if the setting is not given.
        flags: names of the flag besides the one that follows from the setting's name.
        low, high: bounds of the value, allowed themselves.
        above, below: bounds of the value, not allowed themselves.
        no_limit: number outside the range that means None, as -1 does in NVIDIA's scripts.
        metavar: name of the value in the help.
    """
    bounds = {"low": low, "above": above, "high": high, "below": below}
    metadata = {
        "flags": flags,
        "metavar": metavar,
        "no_limit": no_limit,
        **{k: v for k, v in bounds.items() if v is not None},
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
    if optional and (value is None or value == leaf.metadata.get("no_limit")):
        return None
    converted = _converted(leaf, kind, value)
    for number in converted if isinstance(converted, tuple) else (converted,):
        _check_range(leaf, number)
    return converted


def _converted(leaf: Field[Any], kind: Any, value: Any) -> Any:
    flag = flag_name(leaf)
    if typing.get_origin(kind) is Literal:
        if value not in typing.get_args(kind):
            raise UserError(f"{flag} must be one of {', '.join(typing.get_args(kind))}, not {value!r}")
        return value
    if typing.get_origin(kind) is tuple:
        return _converted_tuple(leaf, kind, value)
    if kind is float and isinstance(value, int | float | str) and not isinstance(value, bool):
        try:  # YAML reads 1e-5, without a dot, as a string
            return float(value)
        except ValueError:
            pass
    elif isinstance(value, kind) and (kind is bool or not isinstance(value, bool)):
        return value
    raise UserError(f"{flag} must be of type {kind.__name__}, not {value!r}")


def _converted_tuple(leaf: Field[Any], kind: Any, value: Any) -> tuple[Any, ...]:
    flag = flag_name(leaf)
    size = len(value) if is_list(kind) and isinstance(value, list | tuple) else len(typing.get_args(kind))
    if not isinstance(value, list | tuple) or len(value) != size:
        raise UserError(f"{flag} takes {'a list' if is_list(kind) else f'{size} numbers'}, not {value!r}")
    items = tuple(_converted(leaf, typing.get_args(kind)[0], item) for item in value)
    if not is_list(kind) and list(items) != sorted(items):
        raise UserError(f"{flag} takes the lower number first, not {value!r}")
    return items


def _check_range(leaf: Field[Any], value: Any) -> None:
    wrong = {
        "low": lambda bound: not value >= bound,
        "above": lambda bound: not value > bound,
        "high": lambda bound: not value <= bound,
        "below": lambda bound: not value < bound,
    }
    words = {"low": "at least", "above": "above", "high": "at most", "below": "below"}
    bounds = {word: leaf.metadata[word] for word in words if word in leaf.metadata}
    if any(wrong[word](bound) for word, bound in bounds.items()):
        allowed = " and ".join(f"{words[word]} {bound:g}" for word, bound in bounds.items())
        raise UserError(f"{flag_name(leaf)} must be {allowed}, not {value:g}")
