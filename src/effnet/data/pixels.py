"""Pixels of images as a program has them: Pillow images, arrays, tensors."""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageOps

from effnet.data.decode import Pixels, rgb_pixels
from effnet.runtime.errors import UserError


def pixels_of(image: object) -> Pixels:
    """Return the pixels (H, W, 3) of an image, RGB, upright.

    Args:
        image: a Pillow image of any mode; an array uint8 (H, W), (H, W, 1), (H, W, 3) or (H, W, 4); or a tensor uint8,
            or of floats from 0 to 1, (1 or 3, H, W).

    Raises:
        UserError: anything else.
    """
    if isinstance(image, Image.Image):
        return of_pillow(image)
    if isinstance(image, np.ndarray):
        return of_array(image)
    if isinstance(image, torch.Tensor):
        return of_tensor(image)
    raise UserError(f"no image: {type(image).__name__}; pass a Pillow image, an array or a tensor")


def of_pillow(image: Image.Image) -> Pixels:
    """Return the pixels of a Pillow image; see `pixels_of`."""
    upright = ImageOps.exif_transpose(image)
    upright.load()
    return rgb_pixels(upright)


def of_array(array: npt.NDArray[Any]) -> Pixels:
    """Return the pixels of an array; see `pixels_of`."""
    if array.dtype != np.uint8:
        raise UserError(f"an array of {array.dtype}; images are arrays of uint8, 0 to 255")
    pixels = array[..., None] if array.ndim == 2 else array
    if pixels.ndim != 3 or pixels.shape[2] not in (1, 3, 4) or 0 in pixels.shape:
        raise UserError(
            f"an array of shape {array.shape}; images have (H, W), (H, W, 1), (H, W, 3) or (H, W, 4)"
        )
    return np.ascontiguousarray(np.broadcast_to(pixels[..., :3], (*pixels.shape[:2], 3)))


def of_tensor(tensor: torch.Tensor) -> Pixels:
    """Return the pixels of a tensor; see `pixels_of`."""
    if tensor.ndim != 3 or tensor.shape[0] not in (1, 3) or 0 in tensor.shape:
        raise UserError(
            f"a tensor of shape {tuple(tensor.shape)}; images have (1, H, W), (3, H, W) or (N, 3, H, W)"
        )
    pixels = tensor.detach().cpu()
    if pixels.is_floating_point():
        if not bool(((pixels >= 0) & (pixels <= 1)).all()):
            raise UserError("a tensor of floats outside 0 to 1; pass images before their normalisation")
        pixels = (pixels * 255).round().to(torch.uint8)
    if pixels.dtype != torch.uint8:
        raise UserError(f"a tensor of {pixels.dtype}; images are uint8, or floats from 0 to 1")
    return np.ascontiguousarray(pixels.expand(3, -1, -1).permute(1, 2, 0).numpy())
