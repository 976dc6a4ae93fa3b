"""Compiled operations against Pillow's own, bit by bit."""

from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from effnet.data.augmentations import autoaugment
from effnet.data.augmentations.operations import compiled_operations
from effnet.data.decode import Pixels
from effnet.runtime.cpp import find_compiler

SIZES = [(1, 1), (2, 5), (5, 2), (64, 64), (3, 130), (130, 3), (224, 224), (57, 193)]
# Magnitudes, those of the policy's levels and others, and Pillow's own function.
PILLOW: dict[str, tuple[list[float], Callable[[Image.Image, float], Image.Image]]] = {
    "shear_y": (
        [*(0.03 * level for level in range(-10, 11)), 0.1234567, -0.977, 1.0, 5.5, -200.0],
        lambda image, slope: image.transform(
            image.size,
            Image.Transform.AFFINE,
            (1, 0, 0, -slope, 1, 0),
            Image.Resampling.BICUBIC,
            fillcolor=(128, 128, 128),
        ),
    ),
    "color": (
        [0.1 + 0.18 * level for level in range(11)] + [0.0, 1.0, 3.7],
        lambda image, factor: ImageEnhance.Color(image).enhance(factor),
    ),
    "equalize": ([0], lambda image, _: ImageOps.equalize(image)),
    "auto_contrast": ([0], lambda image, _: ImageOps.autocontrast(image)),
    "posterize": ([1, 2, 3.2, 4, 8], lambda image, bits: ImageOps.posterize(image, round(bits))),
    "solarize": (
        [25.6 * level for level in range(11)],
        lambda image, threshold: ImageOps.solarize(image, threshold),  # type: ignore[arg-type]
    ),
    "solarize_add": (
        [11 * level for level in range(11)],
        lambda image, addend: image.point(
            [min(255, value + addend) if value < 128 else value for value in range(256)] * 3  # type: ignore[misc]
        ),
    ),
    "invert": ([0], lambda image, _: ImageOps.invert(image)),
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
@pytest.mark.parametrize("name", PILLOW)
def test_the_result_is_pillows(name: str, size: tuple[int, int]) -> None:
    operation = compiled_operations()[name]
    magnitudes, pillow = PILLOW[name]
    for number, pixels in enumerate(pictures(*size)):
        before = pixels.copy()
        for magnitude in magnitudes:
            expected = np.asarray(pillow(Image.fromarray(pixels), magnitude))
            found = operation(pixels, magnitude)
            np.testing.assert_array_equal(found, expected, err_msg=f"picture {number}, magnitude {magnitude}")
        np.testing.assert_array_equal(pixels, before)


def test_they_are_compiled_where_a_compiler_is() -> None:
    find_compiler()  # the machine that runs these tests has one
    assert set(compiled_operations()) == set(PILLOW) <= set(autoaugment.OPERATIONS)


def test_pillow_takes_their_place_without_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = pictures(57, 193)[0][:, ::2]  # of which not every row follows the one before
    compiled = [autoaugment.augment(pixels, np.random.default_rng(seed)) for seed in range(200)]
    monkeypatch.setattr(autoaugment, "compiled_operations", dict)
    for seed, expected in enumerate(compiled):
        np.testing.assert_array_equal(autoaugment.augment(pixels, np.random.default_rng(seed)), expected)
