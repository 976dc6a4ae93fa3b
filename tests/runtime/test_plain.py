"""Plain values within limits, whatever shares what."""

from typing import Any

import pytest

from effnet.runtime.errors import UserError, one_line
from effnet.runtime.plain import are_names, check_plain, is_count, parse_json


def test_what_is_plain() -> None:
    check_plain({"a": [1, 1.5, None, True, "x", {"b": ()}], "c": 2**63})


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (float("nan"), "not finite"),
        ([float("-inf")], "not finite"),
        (2**64, "a number of 65 bits"),
        (10**5000, "bits"),
        ({1: 2}, "a key that is a int"),
        ({"a": {1, 2}}, "a set"),
        (b"x", "a bytes"),
        ("x" * 2_000_000, "more than 1,000,000 characters"),
        ([0] * 100_000, "more than 1,000,000 characters"),
    ],
    ids=range(9),
)
def test_what_is_not(value: object, reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        check_plain(value)


def test_what_is_shared_counts_each_time() -> None:
    value: list[Any] = ["x"]
    for _ in range(30):
        value = [value, value]
    with pytest.raises(UserError, match="characters"):
        check_plain(value)
    for _ in range(10):
        value = [value]
    with pytest.raises(UserError, match="more than 32 levels"):
        check_plain(value)


def test_json() -> None:
    assert parse_json(b'{"a": [1, "x"]}') == {"a": [1, "x"]}
    for text in ("[" * 100_000, "NaN", "9" * 5000, "{", "", b"\xff\xfe\x00", "1e999"):
        with pytest.raises(UserError):
            parse_json(text)


def test_ranges() -> None:
    assert is_count(3, 1, 5)
    assert not any(is_count(value, 0, 5) for value in (True, 1.0, "1", None, -1, 6))
    assert are_names(["a", "b"])
    assert not any(map(are_names, (["a", "a"], [""], [1], "ab", None, {"a": 1})))


def test_one_line() -> None:
    assert one_line("a\n\tb\x1b[31m  c") == "a b?[31m c"
    assert one_line("x" * 1000, 10) == "xxxxxxxxxx..."
