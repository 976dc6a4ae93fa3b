"""Heat maps as pictures: over the photographs that they are of."""

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch.nn import functional as F

from effnet.data.decode import Pixels, Readable, Region
from effnet.data.preprocessing import Preprocessing
from effnet.data.transforms import resized, seen_region

LONGEST = 1024
"""longer side of a picture at most, in pixels"""
_SHORTEST = 256
"""shorter side at least, up to which small images are enlarged"""
# Matplotlib's colour map inferno, whose lightness grows evenly, at 16 places.
_INFERNO = (
    *("000004", "0c0826", "240c4f", "420a68", "5d126e", "781c6d", "932667", "ae305c"),
    *("c73e4c", "dd513a", "ed6925", "f8850f", "fca50a", "fac62d", "f2e661", "fcffa4"),
)
# The share of the colour over the photograph where the map is 0 and where it is 1.
_THINNEST, _THICKEST = 0.1, 0.7
_UNSEEN = 0.35
"""brightness of what the model does not see"""


def photograph(image: Readable) -> Pixels:
    """Return the pixels (H, W, 3) of an image for a picture: at most `LONGEST`, small ones enlarged.

    Raises:
        BadImageError: it can't be decoded.
    """
    height, width = image.original
    scale = min(LONGEST / max(height, width), max(1.0, _SHORTEST / min(height, width)))
    size = max(1, round(height * scale)), max(1, round(width * scale))
    return resized(image.decode(*size), *size, "bicubic")


def overlay(photo: Pixels, heat: npt.NDArray[np.float32], preprocessing: Preprocessing) -> Image.Image:
    """Return a heat map over the photograph that it is of; what the model does not see of that is dark.

    Args:
        photo: uint8 (H, W, 3), the whole of it.
        heat: of the model's input, (S, S) in [0, 1].
        preprocessing: of the model, which says where in the photograph its input lies.
    """
    region = seen_region(photo.shape[0], photo.shape[1], preprocessing)
    rows = slice(region.top, region.top + region.height)
    columns = slice(region.left, region.left + region.width)
    picture = photo * np.float32(_UNSEEN)
    picture[rows, columns] = coloured(photo[rows, columns], _at_size(heat, region))
    return Image.fromarray(picture.round().astype(np.uint8))


def coloured(pixels: Pixels, heat: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return pixels under the colours of a heat map, float32 (H, W, 3) from 0 to 255.

    Args:
        pixels: uint8 (H, W, 3).
        heat: (H, W) in [0, 1].
    """
    share = (_THINNEST + (_THICKEST - _THINNEST) * heat)[..., None]
    blend: npt.NDArray[np.float32] = pixels * (1 - share) + colours(heat) * share
    return blend


def colours(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return the colour of each value in [0, 1], float32 (..., 3) from 0 to 255: black, violet, orange, yellow."""
    table = np.array([list(bytes.fromhex(colour)) for colour in _INFERNO], dtype=np.float32)
    places = values * (len(table) - 1)
    return np.stack(
        [np.interp(places, range(len(table)), channel).astype(np.float32) for channel in table.T], axis=-1
    )


def _at_size(heat: npt.NDArray[np.float32], region: Region) -> npt.NDArray[np.float32]:
    maps = torch.from_numpy(heat)[None, None]
    size = region.height, region.width
    enlarged = F.interpolate(maps, size, mode="bilinear", antialias=True)
    scaled: npt.NDArray[np.float32] = enlarged[0, 0].clamp(0, 1).numpy()
    return scaled
