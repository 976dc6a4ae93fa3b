"""Random erasing: how often, how large, and that a sample's own generator decides."""

from pathlib import Path

import numpy as np
import pytest

from effnet.data.erasing import erased
from effnet.data.preprocessing import Preprocessing
from effnet.data.transforms import TrainTransform
from effnet.recipe import DataSettings
from effnet.runtime.errors import UserError
from tests.data.batches import of
from tests.data.conftest import Opened
from tests.data.test_transforms import encoded, photograph

BLACK = np.zeros((64, 64, 3), dtype=np.uint8)


def test_boxes_of_noise_with_the_published_areas() -> None:
    random = np.random.default_rng(0)
    results = [erased(BLACK, 0.4, random) for _ in range(1000)]
    changed = [pixels for pixels in results if pixels is not BLACK]
    assert 340 < len(changed) < 460  # 400 expected, four standard deviations either way
    assert not BLACK.any()
    for pixels in changed:
        rows, columns = np.nonzero(pixels.any(2))
        height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
        assert 0.015 < height * width / 64**2 < 0.42
        assert 0.25 < height / width < 4
        inside = pixels[rows.min() :, columns.min() :][:height, :width]
        assert (inside.any(2)).mean() > 0.99
    inside = np.concatenate([pixels[pixels.any(2)] for pixels in changed])
    assert abs(inside.mean() - 127.5) < 1
    assert abs(inside.std() - np.sqrt((256**2 - 1) / 12)) < 1


def test_it_belongs_to_the_sample_and_changes_nothing_else(tmp_path: Path) -> None:
    image = encoded(tmp_path / "a.png", photograph(48, 48))
    plain = TrainTransform(Preprocessing(32, 32), DataSettings(), 5, None)
    erasing = TrainTransform(Preprocessing(32, 32), DataSettings(random_erasing=1.0), 5, None)
    for epoch in range(4):
        pixels = erasing(image, epoch, 2)
        np.testing.assert_array_equal(pixels, erasing(image, epoch, 2))
        same = (pixels == plain(image, epoch, 2)).all(2).mean()
        assert 0.55 < same < 0.99


def test_batches_are_the_same_with_workers(opened: Opened) -> None:
    settings = {"random_erasing": 0.5, "augmentation_strength": 1.5}
    here, there = (opened(**settings, workers=count) for count in (0, 1))
    for one, other in zip(of(here.train), of(there.train), strict=True):
        assert one.images.equal(other.images)


def test_dali_refuses_it(opened: Opened) -> None:
    pytest.importorskip("nvidia.dali", reason="NVIDIA DALI is not installed: extra dali")
    with pytest.raises(UserError, match="--random-erasing needs --data-backend pytorch or packed"):
        opened(data_backend="dali-cpu", random_erasing=0.5)
