"""Folders of images through PyTorch's DataLoader."""

from collections.abc import Sequence
from pathlib import Path

import torch

from effnet.data.batch import DataSource
from effnet.data.folder import list_images, split_classes
from effnet.data.loader import open_loaders
from effnet.data.preprocessing import Preprocessing
from effnet.recipe import Recipe


def open_pytorch(
    recipe: Recipe,
    path: Path,
    preprocessing: Preprocessing,
    device: torch.device,
    *,
    rank: int,
    world_size: int,
    splits: Sequence[str],
    classes: Sequence[str] | None,
) -> DataSource:
    """Open ``path/train`` and ``path/val``; see `effnet.data.open_data`."""
    if classes is None:
        classes = split_classes(path, splits)
    images = {split: list_images(path, split, classes) for split in splits}
    return open_loaders(recipe, images, classes, preprocessing, device, rank=rank, world_size=world_size)
