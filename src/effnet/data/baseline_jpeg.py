"""Parts of baseline JPEG files, decoded in C++.

A library decodes whole images, or at best whole rows. Of the blocks outside a part the code here reads only how long
they are, and it looks up two numbers at a time: a random crop takes two thirds of the time (docs/performance.md).
"""

import ctypes
import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from effnet.runtime.cpp import load_kernels

_SOURCE = Path(__file__).with_suffix(".cpp")


def is_available() -> bool:
    """Return whether parts can be decoded on this machine; compile the code the first time."""
    return _compiled() is not None


def decode_part(data: bytes, top: int, left: int, height: int, width: int) -> npt.NDArray[np.uint8] | None:
    """Return a part of a JPEG as RGB, uint8 (height, width, 3), the pixels of libjpeg-turbo.

    Args:
        data: the file.
        top, left, height, width: the part, in pixels.

    Returns:
        None where there is no compiler, for a file that is damaged or lacks its end marker, and for what is not decoded
        here: sides below 16 pixels, progressive images, other colours than grey and YCbCr, rarer subsampling.
    """
    function = _compiled()
    if function is None:
        return None
    pixels = np.empty((height, width, 3), np.uint8)
    refused = function(data, len(data), top, left, height, width, pixels.ctypes.data)
    return None if refused else pixels


@functools.cache
def _compiled() -> Callable[..., int] | None:
    library = load_kernels(_SOURCE, "-fwrapv")  # damaged files may exceed 32 bits
    if library is None:
        return None
    function = library.effnet_jpeg_region
    function.restype = ctypes.c_int
    function.argtypes = [ctypes.c_char_p, *[ctypes.c_int64] * 5, ctypes.c_void_p]
    return function
