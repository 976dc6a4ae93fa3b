"""The request for a data set, for one process of a run."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from effnet.data.labels import SplitLabels
from effnet.data.places import DataPlace, Datasets
from effnet.data.position import Indices, TrainOrder, ValOrder
from effnet.data.preprocessing import Preprocessing
from effnet.data.sampling import SAMPLERS
from effnet.data.sources.record import SplitRecord
from effnet.recipe import ResolvedRecipe
from effnet.runtime.errors import UserError


@dataclass(frozen=True)
class DataRequest:
    """Arguments of `effnet.data.open_data`, for one process of a run."""

    recipe: ResolvedRecipe
    """settings of data, batch and seed"""
    path: DataPlace
    """a data source (`effnet.data.sources`), or data sets; for ``packed``, and optionally for DALI, the output of
    `effnet prepare pack`, a folder or a URL; ignored by ``synthetic``"""
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
    stored_split: SplitRecord | None = None
    """the split of an earlier run, for a source without splits"""

    @property
    def file_path(self) -> Path:
        """Path of the data, for backends that read no data sets; `effnet.data.open_data` has refused these."""
        assert not isinstance(self.path, Datasets)
        return self.path

    @property
    def workers(self) -> int:
        """Number of processes or threads that load this process's images."""
        return self.recipe.data.workers

    def order(self, split: str, num_images: int, labels: SplitLabels | None = None) -> TrainOrder | ValOrder:
        """Return the order of this process's images of a split, batch by batch.

        Args:
            split: ``train`` or another.
            num_images: images of the split.
            labels: of the images; None for images whose labels are not known in advance.

        Raises:
            UserError: fewer training images than a global batch has, or a sampler that they are not made for.
        """
        batch_size, seed = self.recipe.optimizer.batch_size, self.recipe.compute.seed
        if split == "train":
            sample = self._sample(labels)
            return TrainOrder(num_images, batch_size, seed, self.rank, self.world_size, sample)
        return ValOrder(num_images, batch_size, self.rank, self.world_size)

    def _sample(self, labels: SplitLabels | None) -> Callable[[int, np.random.Generator], Indices] | None:
        sampler = SAMPLERS[self.recipe.task.sampler]
        if sampler.draw is None:
            return None
        if labels is None:
            raise UserError(f"--sampler {sampler.name}: --data-backend synthetic has no labels to sample by")
        sample = partial(sampler.draw, labels)
        sample(1, np.random.default_rng(0))  # refuses what it can't sample by before the run starts
        return sample
