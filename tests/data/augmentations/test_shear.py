"""The vertical shear against Pillow's own transform."""

import numpy as np
import pytest
from PIL import Image

from effnet.data.augmentations import shear
from effnet.runtime.cpp import find_compiler

SIZES = [(1, 1), (2, 5), (5, 2), (64, 64), (3, 130), (130, 3), (224, 224), (57, 193)]
SLOPES = [0.03 * level for level in range(-10, 11)] + [0.1234567, -0.977, 1.0, 5.5, -200.0]


def picture(height: int, width: int) -> Image.Image:
    """Noise, with a flat part and a black and white one, whose interpolation exceeds both ends of the range."""
    random = np.random.default_rng(height * width)
    pixels = random.integers(0, 256, (height, width, 3), dtype=np.uint8)
    pixels[height // 3 : height // 2] = 77
    pixels[height // 2 : height * 3 // 4] = (
        255 * random.integers(0, 2, pixels.shape, dtype=np.uint8)[height // 2 : height * 3 // 4]
    )
    return Image.fromarray(pixels)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_it_is_pillows_to_the_last_bit(size: tuple[int, int]) -> None:
    image = picture(*size)
    for slope in SLOPES:
        expected = image.transform(
            image.size,
            Image.Transform.AFFINE,
            (1, 0, 0, slope, 1, 0),
            Image.Resampling.BICUBIC,
            fillcolor=(128, 128, 128),
        )
        np.testing.assert_array_equal(shear.shear_y(image, slope, 128), expected, err_msg=str(slope))


def test_it_is_compiled_where_a_compiler_is() -> None:
    find_compiler()  # the machine that runs these tests has one
    assert shear._function() is not None


def test_pillow_takes_its_place_without_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    image = picture(57, 193)
    compiled = shear.shear_y(image, 0.21, 128)
    monkeypatch.setattr(shear, "_function", lambda: None)
    np.testing.assert_array_equal(shear.shear_y(image, 0.21, 128), compiled)
