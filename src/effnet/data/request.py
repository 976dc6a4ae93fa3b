"""The request for a data set, for one process of a run."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from effnet.data.position import TrainOrder, ValOrder
from effnet.data.preprocessing import Preprocessing
from effnet.recipe import ResolvedRecipe


@dataclass(frozen=True)
class DataRequest:
    """Arguments of `effnet.data.open_data`, for one process of a run."""

    recipe: ResolvedRecipe
    """settings of data, batch and seed"""
    path: Path
    """folder with ``train/<class>/<image>`` and ``val/<class>/<image>``; for ``packed``, and optionally for DALI, the
    output of `effnet prepare pack`, a folder or a URL; ignored by ``synthetic``"""
    preprocessing: Preprocessing
    """size and interpolation of the images; normalising them is left to the consumer"""
    device: torch.device
    """device of the batches"""
    rank: int = 0
    """this process among those of the run"""
    world_size: int = 1
    """processes of the run"""
    splits: Sequence[str] = ("train", "val")
    """splits to open, of ``train`` and ``val``"""
    classes: Sequence[str] | None = None
    """class names in the order of the targets that the model was trained with; a folder of another class is an error
    [default: the folders of ``train/``, or those of ``val/`` where only that is opened and there is no ``train/``]"""

    @property
    def workers(self) -> int:
        """Number of processes or threads that load this process's images."""
        return self.recipe.data.workers

    def order(self, split: str, num_images: int) -> TrainOrder | ValOrder:
        """Return the order of this process's images of a split, batch by batch."""
        batch_size = self.recipe.optimizer.batch_size
        if split == "train":
            return TrainOrder(num_images, batch_size, self.recipe.compute.seed, self.rank, self.world_size)
        return ValOrder(num_images, batch_size, self.rank, self.world_size)
