"""AutoAugment's operations by Pillow's own functions, for tests."""

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

GREY = (128, 128, 128)


def moved(image: Image.Image, matrix: tuple[float, ...], kind: Image.Resampling) -> Image.Image:
    return image.transform(image.size, Image.Transform.AFFINE, matrix, resample=kind, fillcolor=GREY)


def steps(lowest: float, highest: float) -> list[float]:
    return np.linspace(lowest, highest, 11).tolist()


# Magnitudes of the 11 levels, and Pillow's own function.
PILLOW: dict[str, tuple[list[float], Callable[[Image.Image, float], Image.Image]]] = {
    "shear_x": (steps(0, 0.3), lambda i, m: moved(i, (1, -m, 0, 0, 1, 0), Image.Resampling.BICUBIC)),
    "shear_y": (steps(0, 0.3), lambda i, m: moved(i, (1, 0, 0, -m, 1, 0), Image.Resampling.BICUBIC)),
    "translate_y": (steps(0, 250), lambda i, m: moved(i, (1, 0, 0, 0, 1, -m), Image.Resampling.NEAREST)),
    "rotate": (steps(0, 30), lambda i, m: i.rotate(m, Image.Resampling.NEAREST, fillcolor=GREY)),
    "color": (steps(0.1, 1.9), lambda i, m: ImageEnhance.Color(i).enhance(m)),
    "posterize": (
        steps(0, 4),
        lambda i, m: ImageOps.posterize(i, round(m)) if round(m) else Image.new("RGB", i.size),
    ),
    "solarize": (steps(0, 256), lambda i, m: ImageOps.solarize(i, m)),  # type: ignore[arg-type]
    "solarize_add": (
        steps(0, 110),
        lambda i, m: Image.eval(i, lambda value: value + m if value < 128 else value),
    ),
    "equalize": (steps(0, 0), lambda i, m: ImageOps.equalize(i)),
    "auto_contrast": (steps(0, 0), lambda i, m: ImageOps.autocontrast(i)),
    "invert": (steps(0, 0), lambda i, m: ImageOps.invert(i)),
}
SIGNED = {"shear_x", "shear_y", "translate_y", "rotate"}
