"""Compiled operations against Pillow's own, bit by bit."""

import numpy as np
import pytest
from PIL import Image

from effnet.data.augmentations import autoaugment
from effnet.data.augmentations.operations import compiled_operations
from effnet.data.decode import Pixels
from effnet.runtime.cpp import find_compiler

from .pillow import PILLOW, SIGNED

SIZES = [(1, 1), (2, 5), (5, 2), (64, 64), (3, 130), (130, 3), (224, 224), (57, 193)]
MOVING = {"shear_x", "translate_y", "rotate"}
"""operations that stay Pillow's: rare, or fast"""
# Magnitudes beyond those of the policy's levels.
FURTHER: dict[str, list[float]] = {
    "shear_y": [0.1234567, -0.977, 1.0, 5.5, -200.0],
    "color": [0.0, 1.0, 3.7],
    "posterize": [1, 2, 3.2, 8],
}


def pictures(height: int, width: int) -> list[Pixels]:
    """Noise with flat parts and extremes, where interpolation exceeds the range; little contrast; a single value."""
    random = np.random.default_rng(height * width)
    noise = random.integers(0, 256, (height, width, 3), dtype=np.uint8)
    noise[height // 3 : height // 2] = 77
    extremes = random.integers(0, 2, noise.shape, dtype=np.uint8)
    noise[height // 2 : height * 3 // 4] = 255 * extremes[height // 2 : height * 3 // 4]
    return [noise, noise // 7 + np.uint8(90), np.full_like(noise, 13), np.full_like(noise, 255)]


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("name", [name for name in PILLOW if name not in MOVING])
def test_the_result_is_pillows(name: str, size: tuple[int, int]) -> None:
    operation = compiled_operations()[name]
    levels, pillow = PILLOW[name]
    negated = [-level for level in levels] if name in SIGNED else []
    magnitudes = sorted({*levels, *negated, *FURTHER.get(name, [])})
    for number, pixels in enumerate(pictures(*size)):
        before = pixels.copy()
        for magnitude in magnitudes:
            expected = np.asarray(pillow(Image.fromarray(pixels), magnitude))
            found = operation(pixels, magnitude)
            np.testing.assert_array_equal(found, expected, err_msg=f"picture {number}, magnitude {magnitude}")
        np.testing.assert_array_equal(pixels, before)


def test_they_are_compiled_where_a_compiler_is() -> None:
    find_compiler()  # the machine that runs these tests has one
    assert set(compiled_operations()) == set(PILLOW) - MOVING
    assert set(PILLOW) == set(autoaugment.OPERATIONS)


def test_pillow_takes_their_place_without_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = pictures(57, 193)[0][:, ::2]  # of which not every row follows the one before
    compiled = [autoaugment.augment(pixels, np.random.default_rng(seed)) for seed in range(200)]
    monkeypatch.setattr(autoaugment, "compiled_operations", dict)
    for seed, expected in enumerate(compiled):
        np.testing.assert_array_equal(autoaugment.augment(pixels, np.random.default_rng(seed)), expected)
