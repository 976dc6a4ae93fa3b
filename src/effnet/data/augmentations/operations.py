"""Operations of AutoAugment in C++: results are Pillow's, the time is a half to a seventh.

Pillow keeps Python's lock while it looks values up, so that a loader's threads wait for each other, and its shear
interpolates in both directions although only one of them moves.
"""

import ctypes
import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np

from effnet.data.augmentations.form import FILL
from effnet.data.decode import Pixels
from effnet.runtime.cpp import load_kernels

PixelOperation = Callable[[Pixels, float], Pixels]
"""returns an image, uint8 (H, W, 3), from an image and a magnitude"""

_SOURCE = Path(__file__).with_suffix(".cpp")
_VALUES = np.arange(256)


@functools.cache
def compiled_operations() -> dict[str, PixelOperation]:
    """Return operations by their names in the policy, those that are compiled; none without a compiler.

    Their magnitudes are those of the policy.
    """
    library = load_kernels(_SOURCE, "-ffp-contract=off")
    if library is None:
        return {}
    pointer, count = ctypes.c_void_p, ctypes.c_int64
    kinds = {
        "look_up": [pointer, pointer, count, pointer],
        "equalize": [pointer, pointer, count],
        "auto_contrast": [pointer, pointer, count],
        "color": [pointer, pointer, count, ctypes.c_float],
        "shear_y": [pointer, pointer, count, count, ctypes.c_double, ctypes.c_char_p],
    }
    for name, arguments in kinds.items():
        function = getattr(library, f"effnet_{name}")
        function.restype, function.argtypes = None, arguments
    return {
        "shear_y": functools.partial(_shear_y, library.effnet_shear_y),
        "color": functools.partial(_color, library.effnet_color),
        "equalize": functools.partial(_by_histogram, library.effnet_equalize),
        "auto_contrast": functools.partial(_by_histogram, library.effnet_auto_contrast),
        **{
            name: functools.partial(_looked_up, library.effnet_look_up, table)
            for name, table in TABLES.items()
        },
    }


_Function = Callable[..., None]


def _computed(function: _Function, pixels: Pixels, *arguments: object) -> Pixels:
    out = np.empty_like(pixels)
    function(pixels.ctypes.data, out.ctypes.data, *arguments)
    return out


def _shear_y(function: _Function, pixels: Pixels, slope: float) -> Pixels:
    if slope == 0:
        return pixels
    return _computed(function, pixels, *pixels.shape[:2], -slope, bytes((FILL, FILL, FILL)))


def _color(function: _Function, pixels: Pixels, factor: float) -> Pixels:
    return _computed(function, pixels, pixels.size // 3, factor)


def _by_histogram(function: _Function, pixels: Pixels, _: float) -> Pixels:
    return _computed(function, pixels, pixels.size // 3)


def _looked_up(
    function: _Function, table: Callable[[float], Pixels], pixels: Pixels, magnitude: float
) -> Pixels:
    return _computed(function, pixels, pixels.size // 3, table(magnitude).ctypes.data)


def _table(values: "np.ndarray[tuple[int, ...], np.dtype[np.int64]]") -> Pixels:
    return np.ascontiguousarray(np.broadcast_to(values.astype(np.uint8), (3, 256)))


@functools.cache
def _posterized(bits: float) -> Pixels:
    return _table(_VALUES & (256 - 2 ** (8 - round(bits))))


@functools.cache
def _solarized(threshold: float) -> Pixels:
    return _table(np.where(threshold > _VALUES, _VALUES, 255 - _VALUES))


@functools.cache
def _added_to_dark(addend: float) -> Pixels:
    return _table(np.where(_VALUES < 128, np.minimum(_VALUES + round(addend), 255), _VALUES))


@functools.cache
def _inverted(_: float) -> Pixels:
    return _table(255 - _VALUES)


TABLES: dict[str, Callable[[float], Pixels]] = {
    "posterize": _posterized,
    "solarize": _solarized,
    "solarize_add": _added_to_dark,
    "invert": _inverted,
}
"""operations that look values up: uint8 (3, 256) of a magnitude, the new value of each value by channel"""
