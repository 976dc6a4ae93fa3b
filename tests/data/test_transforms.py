from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from effnet.data.augmentations import AUGMENTATIONS
from effnet.data.decode import EncodedImage
from effnet.data.preprocessing import INTERPOLATIONS, Preprocessing
from effnet.data.transforms import TrainTransform, ValTransform, crop_box, resized
from effnet.recipe import DataSettings

from .conftest import photograph

FULL_SCALE = DataSettings(crop_scale=(1.0, 1.0), crop_ratio=(1.0, 1.0), hflip=0.0)


def encoded(path: Path, image: Image.Image) -> EncodedImage:
    image.save(path)
    return EncodedImage(path)


def in_pillow(interpolation: str) -> str:
    """Pillow's name: its bilinear filter is a triangle, which widens where it minifies."""
    return "bilinear" if interpolation == "triangular" else interpolation


def by_pillow(path: Path, preprocessing: Preprocessing) -> np.ndarray:
    """Validation as torchvision does it on Pillow images."""
    chain = v2.Compose(
        [
            v2.Resize(preprocessing.resize, v2.InterpolationMode(in_pillow(preprocessing.interpolation))),
            v2.CenterCrop(preprocessing.image_size),
        ]
    )
    return np.asarray(chain(Image.open(path).convert("RGB")))


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
def test_validation_is_torchvisions_on_photographs(shared_dir: Path, interpolation: str) -> None:
    files = sorted((shared_dir / "data" / "imagenet-sample" / "val").glob("*/*"))[::20]
    if not files:
        pytest.skip("no imagenet-sample in shared/data")
    preprocessing = Preprocessing(224, 256, interpolation)
    transform = ValTransform(preprocessing)
    differences = [
        np.abs(transform(EncodedImage(path)).astype(int) - by_pillow(path, preprocessing)).mean()
        for path in files
    ]
    assert max(differences) < 0.5
    assert np.mean(differences) < 0.1


def test_validation_of_a_large_photograph_is_within_rounding(shared_dir: Path, tmp_path: Path) -> None:
    files = sorted((shared_dir / "data" / "imagenet-sample" / "val").glob("*/*"))[:3]
    if not files:
        pytest.skip("no imagenet-sample in shared/data")
    preprocessing = Preprocessing(224, 256)
    for file in files:
        image = Image.open(file).convert("RGB").resize((2400, 1800), Image.Resampling.BICUBIC)
        pixels = ValTransform(preprocessing)(encoded(tmp_path / "large.jpg", image))
        assert np.abs(pixels.astype(int) - by_pillow(tmp_path / "large.jpg", preprocessing)).mean() < 0.5


SIZES = [(1, 1), (1, 3), (2, 31), (31, 33), (64, 48), (5, 3000), (3000, 5), (1, 20000)]


@pytest.mark.parametrize("size", SIZES)
def test_images_of_any_size(tmp_path: Path, size: tuple[int, int]) -> None:
    image = encoded(tmp_path / "image.png", photograph(*size))
    preprocessing = Preprocessing(32, 40)
    pixels = ValTransform(preprocessing)(image)
    assert pixels.shape == (32, 32, 3)
    assert pixels.dtype == np.uint8
    train = TrainTransform(preprocessing, DataSettings(), 0, AUGMENTATIONS["autoaugment"].pixels())
    assert all(train(image, epoch, 0).shape == (32, 32, 3) for epoch in range(8))


def test_small_images_are_enlarged(tmp_path: Path) -> None:
    preprocessing = Preprocessing(64, 72)
    pixels = ValTransform(preprocessing)(encoded(tmp_path / "small.png", photograph(20, 25)))
    expected = by_pillow(tmp_path / "small.png", preprocessing)
    assert np.abs(pixels.astype(int) - expected).mean() < 0.5


@pytest.mark.parametrize("length", [997, 998, 999, 1000])
def test_the_centre_of_a_long_image_stays_the_centre(tmp_path: Path, length: int) -> None:
    columns = np.zeros((length, 100, 3), dtype=np.uint8)
    columns[length // 2 :] = 255  # an edge in the middle
    image = encoded(tmp_path / "long.png", Image.fromarray(columns))
    rows = ValTransform(Preprocessing(100, 100))(image)[:, 0, 0]
    assert np.flatnonzero(rows > 127)[0] in (49, 50, 51)


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize("size", [(40, 30), (200, 240), (41, 240)])
def test_resizing_is_pillows(interpolation: str, size: tuple[int, int]) -> None:
    pixels = np.array(photograph(90, 120))
    pillow = Image.fromarray(pixels).resize(size[::-1], Image.Resampling[in_pillow(interpolation).upper()])
    difference = np.abs(resized(pixels, *size, interpolation).astype(int) - np.asarray(pillow))
    assert difference.max() <= 2
    assert difference.mean() < 0.1  # that is, off by one in some pixels


def test_the_whole_image_as_crop(tmp_path: Path) -> None:
    image = photograph(300, 300)
    transform = TrainTransform(Preprocessing(64, 72), FULL_SCALE, 0, None)
    pixels = transform(encoded(tmp_path / "a.png", image), 0, 0)
    expected = np.asarray(image.resize((64, 64), Image.Resampling.BICUBIC))
    assert np.abs(pixels.astype(int) - expected).max() <= 1


def test_a_crop_at_reduced_size_shows_the_same(tmp_path: Path) -> None:
    image = photograph(900, 1200)
    transform = TrainTransform(Preprocessing(64, 72), DataSettings(), 0, None)
    reduced, whole = encoded(tmp_path / "a.jpg", image), encoded(tmp_path / "a.png", image)
    for epoch in range(10):
        assert np.abs(transform(reduced, epoch, 0).astype(int) - transform(whole, epoch, 0)).mean() < 2


def test_flips_with_the_probability_asked_for(tmp_path: Path) -> None:
    image = encoded(tmp_path / "a.png", photograph(32, 32))
    original = image.decode()
    settings = DataSettings(crop_scale=(1.0, 1.0), crop_ratio=(1.0, 1.0), hflip=0.25)
    transform = TrainTransform(Preprocessing(32, 32), settings, 0, None)
    flipped = 0
    for index in range(400):
        pixels = transform(image, 0, index)
        if not np.array_equal(pixels, original):
            np.testing.assert_array_equal(pixels, original[:, ::-1])
            flipped += 1
    assert 70 < flipped < 130  # 100 expected, 3.5 standard deviations either way


def test_crops_have_the_asked_area_and_aspect() -> None:
    random = np.random.default_rng(0)
    scale, ratio = (0.08, 1.0), (3 / 4, 4 / 3)
    boxes = np.array([crop_box(400, 500, scale, ratio, random) for _ in range(3000)])
    top, left, height, width = boxes.T
    assert ((top >= 0) & (left >= 0) & (top + height <= 400) & (left + width <= 500)).all()
    area, aspect = height * width / 200_000, width / height
    assert area.min() > 0.075
    assert area.max() <= 1
    assert 0.74 < aspect.min() < 0.76
    assert 1.32 < aspect.max() < 1.35
    reference = v2.RandomResizedCrop(10)
    torch.manual_seed(0)
    params = [reference.make_params([torch.empty(3, 400, 500)]) for _ in range(3000)]
    expected = np.array([p["height"] * p["width"] / 200_000 for p in params])
    assert abs(area.mean() - expected.mean()) < 0.02
    assert abs(np.quantile(area, 0.9) - np.quantile(expected, 0.9)) < 0.03


@pytest.mark.parametrize("name", [name for name in AUGMENTATIONS if name != "none"])
def test_augmentation_depends_on_seed_epoch_and_index_alone(tmp_path: Path, name: str) -> None:
    image = encoded(tmp_path / "a.png", photograph(48, 48))
    transform = TrainTransform(Preprocessing(32, 32), FULL_SCALE, 5, AUGMENTATIONS[name].pixels())
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = [transform(image, epoch, 2) for epoch in range(6)]
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    again = [transform(image, epoch, 2) for epoch in reversed(range(6))][::-1]
    np.testing.assert_array_equal(first, again)
    plain = TrainTransform(Preprocessing(32, 32), FULL_SCALE, 5, None)(image, 0, 2)
    assert sum(not np.array_equal(pixels, plain) for pixels in first) >= 3
