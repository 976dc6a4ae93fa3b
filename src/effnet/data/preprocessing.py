"""Preprocessing of a model's input; it is stored with the weights, so that all parts prepare images alike."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from effnet.runtime.errors import UserError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "triangular")


@dataclass(frozen=True)
class Preprocessing:
    """The steps from an image to the network's input in validation and inference.

    The shorter side is resized to `resize`, the centre cropped to `image_size`, the pixels scaled to 0..1,
    and `mean` subtracted and the rest divided by `std` per channel (RGB).

    Raises:
        UserError: a size below 1, a crop larger than the resized image, or an unknown interpolation.
    """

    image_size: int
    """side of the centre crop and of the network's input in pixels"""
    resize: int
    """shorter side after the resize in pixels; NVIDIA's implementation takes image_size + 32"""
    interpolation: str = "bicubic"
    """nearest, bilinear, bicubic or triangular; all but nearest are antialiased, as Pillow's are, so that bilinear is
    the filter that DALI calls triangular"""
    mean: tuple[float, float, float] = IMAGENET_MEAN
    """per channel, on the scale 0..1"""
    std: tuple[float, float, float] = IMAGENET_STD
    """per channel, on the scale 0..1"""

    def __post_init__(self) -> None:
        if not 1 <= self.image_size <= self.resize:
            raise UserError(
                f"a crop of {self.image_size} px does not fit an image resized to {self.resize} px"
            )
        if self.interpolation not in INTERPOLATIONS:
            raise UserError(
                f"--interpolation must be one of {', '.join(INTERPOLATIONS)}, not {self.interpolation!r}"
            )

    def at_size(self, image_size: int | None) -> "Preprocessing":
        """Return the same for another input size, with the ratio of crop to image kept; itself for None."""
        if image_size is None or image_size == self.image_size:
            return self
        return replace(self, image_size=image_size, resize=round(image_size * self.resize / self.image_size))

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for a checkpoint or JSON."""
        return {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Preprocessing":
        """Make one from the values of `to_dict`.

        Raises:
            UserError: a value that is missing, unknown or out of range.
        """
        settings: dict[str, Any] = {n: tuple(v) if isinstance(v, list) else v for n, v in values.items()}
        try:
            return cls(**settings)
        except TypeError as error:
            raise UserError(f"not a description of a model's input: {error}") from None
