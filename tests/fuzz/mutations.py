"""Changes to valid files and to what they hold, each drawn from a random generator."""

import copy
import random
from collections.abc import Callable, Sequence
from typing import Any

import torch

_BYTES = (0x00, 0x01, 0x7F, 0x80, 0xFF, 0x0A, 0x22, 0x5B, 0x7B)
_NUMBERS = (0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, (1 << 63) - 1, (1 << 64) - 1)


def _nested(levels: int) -> list[Any]:
    value: list[Any] = ["x"]
    for _ in range(levels):
        value = [value]
    return value


_SHARED: list[Any] = ["x"]
for _ in range(40):
    _SHARED = [_SHARED, _SHARED]

JUNK: tuple[Any, ...] = (
    *(
        None,
        True,
        False,
        "",
        "x",
        [],
        {},
        [1],
        {"a": 1},
        {1: 2},
        [[]],
        "../../x",
        "/etc/passwd",
        "a\0b",
        "a\nb",
    ),
    *(0, 1, -1, 2, 5, 1 << 31, 1 << 63, 10**12, 10**5000, 0.5, -0.5, 1e30, 1e-30, 1e308),
    *(float("nan"), float("inf"), -float("inf"), "nan", "1e5", "1", "\x1b[31m", "\udcff", "x" * 20_000),
    *(_nested(40), _nested(900), ["x"] * 5000, [float("nan")] * 3, ["a", "a"], ["", "b"]),
)
"""values in place of others"""


def _tensors() -> tuple[Any, ...]:
    return (
        *(torch.zeros(()), torch.zeros(2), torch.zeros(0), torch.zeros(2, 2, dtype=torch.int64)),
        *(
            torch.zeros(3, dtype=torch.bool),
            torch.zeros(3, dtype=torch.complex64),
            torch.full((2,), torch.nan),
        ),
        *(torch.zeros(1).expand(1 << 40), torch.zeros(3, device="meta"), torch.zeros(2, 2).to_sparse()),
    )


SHARED_JUNK: tuple[Any, ...] = (*JUNK, _SHARED)
"""the same, for formats in which a value may be there more than once"""
TENSOR_JUNK: tuple[Any, ...] = (*SHARED_JUNK, *_tensors())
"""the same, for files that hold tensors"""

Mutation = Callable[[random.Random, bytearray], None]


def changed_bytes(draw: random.Random, seeds: Sequence[bytes], words: Sequence[bytes] = ()) -> bytes:
    """Return one of the files with one to four changes: bits, bytes, numbers, spans, and words of its language.

    Args:
        draw: decides everything.
        seeds: valid files; parts of one may be put into another.
        words: byte strings that mean something to the reader.
    """
    content = bytearray(draw.choice(seeds))
    for _ in range(draw.randint(1, 4)):
        change = draw.choice(_MUTATIONS)
        if change is _insert and words and draw.random() < 0.7:
            place = draw.randrange(len(content) + 1)
            content[place:place] = draw.choice(words)
        elif change is _splice:
            other = draw.choice(seeds)
            content[draw.randrange(len(content) + 1) :] = other[draw.randrange(len(other) + 1) :]
        else:
            change(draw, content)
    return bytes(content)


def changed_value(draw: random.Random, value: Any, junk: Sequence[Any] = JUNK) -> Any:
    """Return a copy of a nested value with one to three changes: an entry deleted, replaced, doubled or moved."""
    changed = _copied(value)
    for _ in range(draw.randint(1, 3)):
        if any(changed is part for part in junk):
            break  # the same for all inputs, so it must stay as it is
        changed = _change_once(draw, changed, junk)
    return changed


def _copied(value: Any) -> Any:
    """Copy mappings and lists, not tensors."""
    if isinstance(value, dict):
        return {key: _copied(part) for key, part in value.items()}
    return [_copied(part) for part in value] if type(value) is list else copy.copy(value)


def _change_once(draw: random.Random, value: Any, junk: Sequence[Any]) -> Any:
    inner = isinstance(value, dict | list) and len(value) > 0
    if not inner or draw.random() < 0.02:
        return draw.choice(junk)
    key = draw.choice(list(value)) if isinstance(value, dict) else draw.randrange(len(value))
    is_deeper = isinstance(value[key], dict | list) and len(value[key]) > 0 and draw.random() < 0.8
    # What is shared or deep comes from the junk, and is not gone into.
    if is_deeper and not any(value[key] is part for part in junk):
        value[key] = _change_once(draw, value[key], junk)
        return value
    action = draw.randrange(4)
    if action == 0:
        del value[key]
    elif action == 1 and isinstance(value, dict):
        value[draw.choice(("invented", "", "../x", "x" * 400))] = value[key]
    elif action == 2 and isinstance(value[key], int | float) and not isinstance(value[key], bool):
        value[key] = draw.choice((-1, 0, 1, 2, 10, 1000)) * value[key] + draw.choice((-1, 0, 1))
    else:
        value[key] = draw.choice(junk)
    return value


def _flip(draw: random.Random, content: bytearray) -> None:
    if content:
        content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)


def _set(draw: random.Random, content: bytearray) -> None:
    if content:
        content[draw.randrange(len(content))] = draw.choice(_BYTES)


def _cut(draw: random.Random, content: bytearray) -> None:
    del content[draw.randrange(len(content) + 1) :]


def _delete(draw: random.Random, content: bytearray) -> None:
    start = draw.randrange(len(content) + 1)
    del content[start : start + draw.randint(1, 16)]


def _double(draw: random.Random, content: bytearray) -> None:
    start = draw.randrange(len(content) + 1)
    content[start:start] = content[start : start + draw.randint(1, 64)] * draw.choice((1, 2, 50))


def _number(draw: random.Random, content: bytearray) -> None:
    number, size = draw.choice(_NUMBERS), draw.choice((1, 2, 4, 8))
    place = draw.randrange(len(content) + 1)
    order = draw.choice(("little", "big"))
    content[place : place + size] = (number & ((1 << 8 * size) - 1)).to_bytes(size, order)  # type: ignore[arg-type]


def _insert(draw: random.Random, content: bytearray) -> None:
    place = draw.randrange(len(content) + 1)
    content[place:place] = bytes(draw.choice(_BYTES) for _ in range(draw.randint(1, 8)))


def _splice(draw: random.Random, content: bytearray) -> None:
    raise AssertionError("needs the other files")


_MUTATIONS: tuple[Mutation, ...] = (_flip, _flip, _set, _cut, _delete, _double, _number, _insert, _splice)
