"""Helpers for tests of whole runs: images, quick settings, and the records of a run's log."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from PIL import Image

from effnet.models.config import MODEL_CONFIGS
from effnet.recipe import Recipe, ResolvedRecipe
from effnet.training.facts import facts_of

CLASSES = ("circle", "square", "star")
"""classes of the fixture `images`"""
PREPROCESSING = {
    "image_size": 32,
    "resize": 36,
    "interpolation": "bicubic",
    "mean": [0.5] * 3,
    "std": [0.2] * 3,
}
"""preprocessing in the metadata of weights made for a test"""


@contextmanager
def networks_made_small(*names: str) -> Iterator[None]:
    """Make networks of a quarter of the width, with a block or two in each stage, under the names of models.

    A run, an export and what reads their files know a network by its name, so that all do the same with fewer layers.

    Args:
        names: of the models and of their quantized twins; all if there are none.
    """
    rows = {
        name: replace(row, width=row.width / 4, depth=row.depth * 0.3)
        for name, row in MODEL_CONFIGS.items()
        if not names or name in names or row.twin in names
    }
    with mock.patch.dict(MODEL_CONFIGS, rows):
        yield


def write_images(split: Path, counts: Mapping[str, int], *, coloured: bool = False) -> None:
    """Images of noise, 40 by 48 pixels, in a folder for each class.

    Args:
        split: folder of the classes; its name decides the noise.
        counts: number of images by class.
        coloured: the first three classes get a colour, by which they can be told apart.
    """
    random = np.random.default_rng(list(split.name.encode()))
    for number, (name, count) in enumerate(counts.items()):
        (split / name).mkdir(parents=True)
        for index in range(count):
            pixels = random.integers(0, 120 if coloured else 256, (40, 48, 3), dtype=np.uint8)
            if coloured:
                pixels[..., number] += 130
            Image.fromarray(pixels).save(split / name / f"{index}.jpg")


def quick_recipe(workspace: Path, **changes: Any) -> Recipe:
    """Settings of a run of a few seconds on the CPU."""
    values = {
        "arch": "efficientnet-lite0",  # the quickest to run
        "image_size": 32,
        "batch_size": 8,
        "epochs": 3,
        "workers": 0,
        "lr": 0.01,
        "print_freq": 2,
        "device": "cpu",
        "workspace": str(workspace),
    }
    return Recipe().replace({**values, **changes})


def resolved(recipe: Recipe, world_size: int = 1, num_classes: int = 1000) -> ResolvedRecipe:
    """Return a recipe resolved for fresh weights in FP32."""
    return recipe.resolve(facts_of(recipe, precision="fp32", num_classes=num_classes, world_size=world_size))


def records(workspace: Path, kind: str) -> list[dict[str, Any]]:
    """Complete lines of a kind in a run's log, which may be still being written; none before it is there."""
    log = workspace / "report.json"
    lines = log.read_text().split("\n")[:-1] if log.exists() else []
    return [record for record in map(json.loads, lines) if record["type"] == kind]
