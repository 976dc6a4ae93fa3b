"""Views of an image over which its answers are averaged: test-time augmentation.

A new set of views is a row here, and its name in `effnet.recipe.choices.ViewsName`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from torch import Tensor

from effnet.data.preprocessing import Preprocessing
from effnet.recipe.choices import ViewsName
from effnet.runtime.errors import UserError
from effnet.runtime.registry import registry


@dataclass(frozen=True)
class Views:
    """A set of views of an image.

    Attributes:
        name: value of ``--tta``.
        summary: one line for the documentation's table.
        crops: the centre and the four corners of the resized image, not the centre alone.
        mirrors: each of them mirrored, too.
    """

    name: str
    summary: str
    crops: bool = False
    mirrors: bool = False

    @property
    def are_several(self) -> bool:
        """True if an image has more than one view."""
        return self.crops or self.mirrors

    def preprocessing(self, own: Preprocessing) -> Preprocessing:
        """Return the preprocessing of the images that the views are taken of.

        Args:
            own: the model's.

        Raises:
            UserError: crops of an image that is resized to no more than the model's input.
        """
        if not self.crops:
            return own
        if own.resize == own.image_size:
            raise UserError(
                f"--tta {self.name}: images are resized to the {own.image_size} px of the input, so all crops are the "
                "same; give --tta flip, or to `effnet evaluate` a larger --resize"
            )
        return replace(own, image_size=own.resize)

    def of(self, images: Tensor, side: int, *, channels_last: bool = False) -> Iterator[Tensor]:
        """Yield the views of a batch, one at a time.

        Args:
            images: (N, 3, H, W), or (N, H, W, 3) with `channels_last`, of `preprocessing`.
            side: of the model's input, in pixels.
            channels_last: the order of the dimensions.
        """
        rows, columns = (1, 2) if channels_last else (2, 3)
        for top, left in self._corners(images.shape[rows] - side, images.shape[columns] - side):
            view = images.narrow(rows, top, side).narrow(columns, left, side) if self.crops else images
            yield view
            if self.mirrors:
                yield view.flip(columns)

    def _corners(self, bottom: int, right: int) -> list[tuple[int, int]]:
        """Return row and column of each crop's first pixel, the centre's first."""
        centre = (bottom // 2, right // 2)
        return [centre, (0, 0), (0, right), (bottom, 0), (bottom, right)] if self.crops else [centre]


VIEWS: Mapping[str, Views] = registry(
    ViewsName,
    Views("none", "the image alone"),
    Views("flip", "the image and its mirror image", mirrors=True),
    Views(
        "five", "crops of the centre and the four corners of the resized image's central square", crops=True
    ),
    Views("ten", "those five, and each mirrored", crops=True, mirrors=True),
)
"""the registry, by the value of ``--tta``"""


def views_of(name: str) -> Views:
    """Return a set of views by its name.

    Raises:
        UserError: there is none of this name.
    """
    if name not in VIEWS:
        raise UserError(f"--tta must be one of {', '.join(VIEWS)}, not {name!r}")
    return VIEWS[name]
