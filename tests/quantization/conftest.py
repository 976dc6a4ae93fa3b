"""The reference's facts, and images to run on."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.models.conftest import shapes

__all__ = ["shapes"]

CLASSES = ("circle", "square", "star")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes that differ in colour, 12 images each for training and 5 for validation."""
    root = tmp_path_factory.mktemp("images")
    random = np.random.default_rng(0)
    for split, count in (("train", 12), ("val", 5)):
        for channel, name in enumerate(CLASSES):
            folder = root / split / name
            folder.mkdir(parents=True)
            for index in range(count):
                pixels = random.integers(0, 120, (40, 40, 3))
                pixels[..., channel] += 130
                Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{index}.png")
    return root
