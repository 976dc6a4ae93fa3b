"""From an encoded image to the network's input size, in uint8.

Resizing is PyTorch's antialiased interpolation on uint8, three times as fast as Pillow's and within 0.03 of
255 of it on average over photographs; automatic augmentation computes
what Pillow does, by Pillow or in C++, at least twice as fast as on tensors (one core).
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional as F

from effnet.data.augmentations import PixelForm
from effnet.data.decode import Pixels, Readable, Region
from effnet.data.erasing import erased
from effnet.data.preprocessing import Preprocessing
from effnet.data.randomness import Stream, generator
from effnet.data.sizes import Sizes
from effnet.recipe import DataSettings

# Decoding at reduced size leaves this many times the side that the resize then needs, so that validation stays
# within rounding of decoding in full. Training tolerates what no margin changes.
_VAL_MARGIN = 2.0
# The centre crop sees only the middle of a long image; without its ends, no file can ask for gigabytes.
MAX_ASPECT = 4


@dataclass(frozen=True)
class TrainTransform:
    """Random resized crop (arXiv 1409.4842), horizontal flip, automatic augmentation, random erasing.

    What happens to an image depends on the seed, the epoch and its index alone.
    """

    preprocessing: Preprocessing
    settings: DataSettings
    seed: int
    augment: PixelForm | None
    sizes: Sizes | None = None
    """sides of the images by epoch; None for the preprocessing's in all"""

    def __call__(self, image: Readable, epoch: int, index: int) -> Pixels:
        """Pixels (side, side, 3), where the side is that of the epoch.

        Raises:
            BadImageError: the image can't be decoded.
        """
        random = generator(Stream.SAMPLE, self.seed, epoch, index)
        settings = self.settings
        side = self.preprocessing.image_size if self.sizes is None else self.sizes.at(epoch)
        region = crop_box(image.height, image.width, settings.crop_scale, settings.crop_ratio, random)
        flip = random.random() < settings.hflip
        pixels = image.crop(region, enough=side)
        pixels = resized(pixels, side, side, self.preprocessing.interpolation)
        if flip:
            pixels = torch.from_numpy(pixels).flip(1).numpy()  # 20 times as fast as NumPy's
        if self.augment is not None:
            pixels = self.augment(pixels, random)
        return erased(pixels, settings.random_erasing, random)


@dataclass(frozen=True)
class ValTransform:
    """Resize of the shorter side, up or down, and centre crop."""

    preprocessing: Preprocessing

    def __call__(self, image: Readable, epoch: int = 0, index: int = 0) -> Pixels:
        """Pixels (image_size, image_size, 3), the same whatever the epoch and index.

        Raises:
            BadImageError: the image can't be decoded.
        """
        resize, side = self.preprocessing.resize, self.preprocessing.image_size
        enough = math.ceil(_VAL_MARGIN * resize)
        pixels = image.decode(enough, enough)
        shorter = min(pixels.shape[:2])
        pixels = _centre(pixels, *(_limited(n, MAX_ASPECT * shorter) for n in pixels.shape[:2]))
        # of the original: pixels that were decoded at a reduced size, or packed, had their sides rounded
        shorter = min(image.original)
        height, width = (resize * min(n, MAX_ASPECT * shorter) // shorter for n in image.original)
        return _centre(resized(pixels, height, width, self.preprocessing.interpolation), side, side)


def seen_region(height: int, width: int, preprocessing: Preprocessing) -> Region:
    """Return the part of an image that `ValTransform` leaves of it, to the nearest pixel.

    Args:
        height, width: size of the image.
        preprocessing: of the model.
    """
    side = max(1, round(min(height, width) * preprocessing.image_size / preprocessing.resize))
    return Region((height - side) // 2, (width - side) // 2, side, side)


def crop_box(
    height: int,
    width: int,
    scale: tuple[float, float],
    ratio: tuple[float, float],
    random: np.random.Generator,
) -> Region:
    """A random crop of an image, at least 1 by 1.

    Its share of the area is uniform in `scale`, its aspect ratio (width by height) log-uniform in `ratio`.
    After ten crops that do not fit, the largest centred one whose aspect ratio is within `ratio`.
    """
    low, high = math.log(ratio[0]), math.log(ratio[1])
    for _ in range(10):
        area = height * width * random.uniform(*scale)
        aspect = math.exp(random.uniform(low, high))
        crop_width, crop_height = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < crop_width <= width and 0 < crop_height <= height:
            top = int(random.integers(height - crop_height + 1))
            left = int(random.integers(width - crop_width + 1))
            return Region(top, left, crop_height, crop_width)
    crop_width = max(1, min(width, round(height * ratio[1])))
    crop_height = max(1, min(height, round(width / ratio[0])))
    top, left = (height - crop_height) // 2, (width - crop_width) // 2
    return Region(top, left, crop_height, crop_width)


# Of the two nearest ones that which agrees with Pillow; the antialiased bilinear filter is a triangle.
_TORCH_MODES = {"nearest": "nearest-exact", "triangular": "bilinear"}


def resized(pixels: Pixels, height: int, width: int, interpolation: str) -> Pixels:
    """`pixels` (H, W, 3) at another size, antialiased as Pillow does it."""
    if pixels.shape[:2] == (height, width):
        return pixels
    if not pixels.flags.writeable:  # memory-mapped: PyTorch warns of a tensor on it
        pixels = pixels.copy()
    # Permuted last: PyTorch can't see channels-last in the strides of a batch of one image.
    image = torch.from_numpy(pixels)[None].permute(0, 3, 1, 2)
    smooth = interpolation != "nearest"
    mode = _TORCH_MODES.get(interpolation, interpolation)
    out: Pixels = (
        F.interpolate(image, (height, width), mode=mode, antialias=smooth)[0].permute(1, 2, 0).numpy()
    )
    return out


def _limited(length: int, longest: int) -> int:
    """Return `length` limited to `longest`, or to one less where only that can be centred exactly."""
    return length if length <= longest else longest - (length - longest) % 2


def _centre(pixels: Pixels, height: int, width: int) -> Pixels:
    top, left = (round((n - wanted) / 2) for n, wanted in zip(pixels.shape, (height, width), strict=False))
    return pixels[top : top + height, left : left + width]
