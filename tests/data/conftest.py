"""Small data sets made on the spot."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from effnet.data import DataRequest, DataSource, Preprocessing, open_data
from effnet.recipe import Recipe
from tests.runs import resolved

CPU = torch.device("cpu")


def photograph(height: int, width: int, seed: int = 0) -> Image.Image:
    """Smooth colours, which survive JPEG and resizing as those of photographs do."""
    random = np.random.default_rng(seed)
    colours = random.integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return Image.fromarray(colours).resize((width, height), Image.Resampling.BICUBIC)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """22 training and 7 validation images in two classes, of several sizes."""
    root = tmp_path_factory.mktemp("folder")
    for split, count in {"train": 11, "val": 4}.items():
        for label in ("cat", "dog"):
            (root / split / label).mkdir(parents=True)
            for n in range(count - (split == "val" and label == "dog")):
                image = photograph(40 + 3 * n, 90 - 4 * n, seed=n + 100 * (label == "dog"))
                image.save(root / split / label / f"{n}.jpg", quality=95)
    return root


Opened = Callable[..., DataSource]


@pytest.fixture
def opened(folder: Path) -> Opened:
    """`open_data` of the folder, or of another, with settings by name."""

    def open_it(
        path: Path = folder,
        size: int = 32,
        rank: int = 0,
        world_size: int = 1,
        splits: tuple[str, ...] = ("train", "val"),
        classes: list[str] | None = None,
        device: torch.device = CPU,
        **settings: object,
    ) -> DataSource:
        recipe = resolved(Recipe().replace({"workers": 0, "batch_size": 4, "seed": 3, **settings}))
        preprocessing = Preprocessing(size, size + 8, recipe.data.interpolation)
        return open_data(DataRequest(recipe, path, preprocessing, device, rank, world_size, splits, classes))

    return open_it
