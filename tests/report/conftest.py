"""Runs to report."""

from pathlib import Path

import pytest

from effnet.training.run import train
from tests.runs import quick_recipe


@pytest.fixture(scope="session")
def trained(images: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Workspaces of three short trainings with other settings; not to be changed."""
    settings = (
        {"lr": 0.01},
        {"lr": 0.003, "use_ema": 0.9, "augmentation": "none"},
        {"lr": 0.01, "optimizer": "sgd", "mixup": 0.0},
    )
    places = [tmp_path_factory.mktemp(name) for name in ("first", "average", "sgd")]
    for place, own in zip(places, settings, strict=True):
        train(quick_recipe(place, epochs=3, quiet=True, **own), images)
    return places
