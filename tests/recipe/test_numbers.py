"""One notation of numbers everywhere, and a range for every number."""

import typing
from typing import Any

import numpy as np
import pytest
import torch

from effnet.data.randomness import Stream, generator
from effnet.recipe import Recipe, settings
from effnet.recipe.fields import is_list, range_of, value_type
from effnet.recipe.numbers import integer, number
from effnet.runtime.errors import UserError

NUMBERS = [
    (leaf.name, kind)
    for _, _, leaf in settings()
    for kind in [value_type(leaf)[0]]
    if kind in (int, float) or (typing.get_origin(kind) is tuple and not is_list(kind))
]


@pytest.mark.parametrize(("name", "kind"), NUMBERS)
def test_every_number_has_a_range_without_infinity(name: str, kind: Any) -> None:
    (leaf,) = (leaf for _, _, leaf in settings() if leaf.name == name)
    bounds = range_of(leaf)
    assert (bounds.low, bounds.above) != (None, None)
    assert (bounds.high, bounds.below) != (None, None)
    for value in (float("nan"), float("inf"), -float("inf"), "nan", ".inf", "1e400", 10**400, "1_0"):
        with pytest.raises(UserError, match="--" + name.replace("_", "-")):
            Recipe().replace({name: value if kind in (int, float) else [value, value]})


@pytest.mark.parametrize("text", ["1e3", "0x10", "\u0661", "1_000", " 5", "5\n", "", "2.0", "9" * 5000])
def test_whole_numbers_have_one_notation(text: str) -> None:
    assert (integer("12"), integer("-3"), integer("+4"), integer("007")) == (12, -3, 4, 7)
    with pytest.raises(ValueError, match="whole number"):
        integer(text)


@pytest.mark.parametrize(
    "text", ["nan", "inf", "1e400", "0x1p3", "\u0661", "1_0.5", " 1", "", "1,5", ".", "e5"]
)
def test_decimal_numbers_have_one_notation(text: str) -> None:
    assert (number("1e-5"), number(".5"), number("-2."), number("+3E2"), number("7")) == (
        1e-5,
        0.5,
        -2,
        300,
        7,
    )
    with pytest.raises(ValueError, match="finite number"):
        number(text)


def test_the_largest_seed_suits_every_generator() -> None:
    largest = 2**63 - 1
    assert Recipe().replace({"seed": largest}).compute.seed == largest
    torch.Generator().manual_seed(largest + 1023)  # with the rank added
    np.random.default_rng(largest)
    generator(Stream.SAMPLE, largest, epoch=0).random()
    with pytest.raises(UserError, match="--seed must be at least 0 and at most 9223372036854775807"):
        Recipe().replace({"seed": largest + 1})


@pytest.mark.parametrize("text", ["", "a\0b", "x" * 256, "y/" * 3000, "\ud800"])
def test_texts_that_name_nothing(text: str) -> None:
    with pytest.raises(UserError, match="--workspace must") as error:
        Recipe().replace({"workspace": text})
    assert len(str(error.value)) < 250


@pytest.mark.parametrize("name", ["../x", "/x", "a/b", ".", ".."])
def test_a_file_in_the_workspace_has_no_folder(name: str) -> None:
    for setting in ("report_file", "checkpoint_filename"):
        with pytest.raises(UserError, match="must be the name of a file"):
            Recipe().replace({setting: name})
