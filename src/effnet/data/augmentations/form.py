"""The two forms that an automatic augmentation has: on pixels, and in DALI's graph."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from effnet.data.decode import Pixels

FILL = 128
"""mid-grey, in all three channels, where an operation has moved the image away"""


class PixelForm(Protocol):
    """An augmentation of an image's pixels; workers get a copy each, so it can be pickled."""

    def __call__(self, pixels: Pixels, random: np.random.Generator) -> Pixels:
        """Augment one image.

        Args:
            pixels: uint8 (H, W, 3), RGB; they are left as they are.
            random: source of all randomness.

        Returns:
            uint8 (H, W, 3).
        """


class DaliOperation(NamedTuple):
    """An operation in DALI's graph."""

    name: str
    run: Callable[..., Any]
    """called with images and DALI's own ``magnitude_bin``, ``num_magnitude_bins`` and ``fill_value``"""


@dataclass(frozen=True)
class DaliForm:
    """An augmentation by DALI's operations; its random numbers are drawn outside the graph."""

    stages: list[list[DaliOperation]]
    """operations from which each stage takes one for an image"""
    num_bins: int
    """steps on the scale of magnitudes"""
    draw: Callable[[np.random.Generator], npt.NDArray[np.int32]]
    """int32 (stages, 3) for an image: in each stage the operation, its magnitude, and 1 if the magnitude is negated"""


@dataclass(frozen=True)
class Augmentation:
    """An automatic augmentation, applied after crop and flip."""

    name: str
    """value of ``--augmentation``"""
    summary: str
    """its effect, for the documentation's table"""
    pixels: Callable[[], PixelForm | None]
    """returns the form of the backends ``pytorch`` and ``packed``, None for an augmentation that changes nothing"""
    dali: Callable[[int], DaliForm | None]
    """returns the form of ``dali-cpu`` and ``dali-gpu`` for an image side in pixels; it may import DALI"""
