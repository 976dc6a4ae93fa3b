"""Progressive sizes: small training images at first, then larger ones (arXiv 2104.00298)."""

from dataclasses import dataclass

from effnet.recipe import ResolvedRecipe

_STEP = 32
"""pixels that the network's strides take together"""


@dataclass(frozen=True)
class Sizes:
    """Side of the training images by epoch.

    Attributes:
        low: side in the first epoch, in pixels.
        high: side in the last one.
        epochs: epochs of the training.
    """

    low: int
    high: int
    epochs: int

    def at(self, epoch: int) -> int:
        """Return the side in an epoch, counted from 0: a multiple of 32, or `low` or `high`."""
        done = min(1.0, epoch / (self.epochs - 1)) if self.epochs > 1 else 1.0
        exact = self.low + (self.high - self.low) * done
        if done in (0.0, 1.0) or self.low == self.high:
            return round(exact)
        return min(self.high, max(self.low, _STEP * round(exact / _STEP)))

    def all(self) -> list[int]:
        """Return the sides that occur, ascending."""
        return sorted({self.at(epoch) for epoch in range(self.epochs)})


def training_sizes(recipe: ResolvedRecipe, image_size: int | None = None) -> Sizes:
    """Return the sides of a run's training images.

    Args:
        recipe: settings of the run.
        image_size: side at the end in pixels; None for the recipe's.
    """
    high = image_size or recipe.model.image_size
    return Sizes(recipe.data.progressive_sizes or high, high, recipe.schedule.epochs)
