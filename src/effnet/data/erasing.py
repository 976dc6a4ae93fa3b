"""Random erasing: a box of a training image is replaced by noise (arXiv 1708.04896)."""

import math

import numpy as np

from effnet.data.decode import Pixels

# As published: share of the image's area, aspect ratio.
_SCALE = (0.02, 0.4)
_RATIO = (0.3, 1 / 0.3)
_ATTEMPTS = 100


def erased(pixels: Pixels, probability: float, random: np.random.Generator) -> Pixels:
    """Return an image in which, with a probability, a box holds uniform noise.

    Args:
        pixels: uint8 (H, W, 3); left as they are.
        probability: probability that there is a box.
        random: source of all randomness; with probability 0 nothing is drawn.
    """
    if probability == 0 or random.random() >= probability:
        return pixels
    height, width = pixels.shape[:2]
    for _ in range(_ATTEMPTS):
        area = height * width * random.uniform(*_SCALE)
        aspect = math.exp(random.uniform(math.log(_RATIO[0]), math.log(_RATIO[1])))
        rows, columns = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < rows < height and 0 < columns < width:
            top, left = int(random.integers(height - rows + 1)), int(random.integers(width - columns + 1))
            out = np.array(pixels)
            out[top : top + rows, left : left + columns] = random.integers(
                256, size=(rows, columns, 3), dtype=np.uint8
            )
            return out
    return pixels
