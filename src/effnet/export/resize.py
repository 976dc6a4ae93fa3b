"""Validation's resize and centre crop as a graph, for images of any height and width.

Each axis is one product with a matrix of weights, which the graph makes from the image's size, since the engines' own
operators for a resize differ in filters, corners and rounding. Like Pillow, and PyTorch on uint8, it resizes along rows
first and rounds to whole numbers after each axis.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from effnet.data.preprocessing import Preprocessing
from effnet.data.transforms import MAX_ASPECT

_A = -0.5  # of the bicubic filter: Pillow's, and PyTorch's where it is antialiased


class ResizeAndCrop(nn.Module):
    """Resize the shorter side and crop the centre, as `effnet.data.transforms.ValTransform` does.

    Shapes: (N, H, W, 3) uint8, any H and W -> (N, 3, S, S) float32 of whole numbers from 0 to 255.
    """

    def __init__(self, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.side, self.resize = preprocessing.image_size, preprocessing.resize
        self.filter = preprocessing.interpolation

    def forward(self, images: Tensor) -> Tensor:
        """Resize and crop."""
        _, height, width, _ = images.shape
        shorter = torch.minimum(_whole(height), _whole(width))
        rows, columns = self._weights(height, shorter), self._weights(width, shorter)
        pixels = images.permute(0, 3, 1, 2).float()
        pixels = _rounded(pixels @ columns.T)
        return _rounded(rows @ pixels)

    def _weights(self, length: int, shorter: Tensor) -> Tensor:
        """Return the weight of each of `length` pixels in each of the crop's, (side, length)."""
        axis = _axis(_whole(length), shorter, self.resize, self.side)
        centres = (axis.top + torch.arange(self.side)[:, None] + 0.5) * axis.scale
        places = torch.arange(length)[None] - axis.left_out + 0.5
        if self.filter == "nearest":
            return (centres.floor() == places.floor()).float()
        weights = _filtered((places - centres) / axis.scale.clamp(min=1), self.filter)
        weights = weights * ((places > 0) & (places < axis.kept))
        return weights / weights.sum(1, keepdim=True)


class _Axis(NamedTuple):
    """The geometry of one axis; scalar tensors."""

    left_out: Tensor
    """pixels before the part of a long image that is looked at"""
    kept: Tensor
    """pixels of that part"""
    scale: Tensor
    """pixels of the image in one of the resized image"""
    top: Tensor
    """pixels of the resized image before the crop"""


def _axis(length: Tensor, shorter: Tensor, resize: int, side: int) -> _Axis:
    longest = MAX_ASPECT * shorter
    kept = torch.where(length <= longest, length, longest - (length - longest) % 2)
    resized = _quotient(resize * torch.minimum(length, longest), shorter)
    scale = kept.float() / resized.float()
    return _Axis((length - kept).float() / 2, kept.float(), scale, ((resized - side).float() / 2).round())


def _quotient(dividend: Tensor, divisor: Tensor) -> Tensor:
    """Return dividend // divisor of whole numbers above 0, which engines divide in floating point and so may miss."""
    near = (dividend.float() / divisor.float()).floor().long()
    above = (near * divisor > dividend).long()
    below = ((near + 1) * divisor <= dividend).long()
    return near - above + below


def _filtered(x: Tensor, name: str) -> Tensor:
    x = x.abs()
    if name != "bicubic":
        return (1 - x).clamp(min=0)
    near = ((_A + 2) * x - (_A + 3)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * _A
    return torch.where(x < 1, near, torch.where(x < 2, far, 0.0))


def _rounded(pixels: Tensor) -> Tensor:
    return (pixels + 0.5).floor().clamp(0, 255)


def _whole(size: int) -> Tensor:
    return torch.scalar_tensor(size, dtype=torch.int64)
