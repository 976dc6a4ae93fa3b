"""A broken image stops a run before its first step, in every backend and in all processes."""

import json
import os
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from effnet.cli import main
from effnet.data.decode import EncodedImage
from effnet.recipe import Recipe
from effnet.runtime.errors import UserError
from effnet.training.run import train
from tests.training.processes import in_processes

NO_DALI = pytest.mark.skipif(not find_spec("nvidia.dali"), reason="NVIDIA DALI is not installed")
BACKENDS = ["pytorch", pytest.param("dali-cpu", marks=NO_DALI)]
IMAGES = 2 * (6 + 3)


@pytest.fixture
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two classes of six images for training and three for validation; nothing of them is remembered yet."""
    monkeypatch.setenv("EFFNET_HOME", str(tmp_path / "home"))
    random = np.random.default_rng(0)
    for split, count in (("train", 6), ("val", 3)):
        for name in ("left", "right"):
            folder = tmp_path / "images" / split / name
            folder.mkdir(parents=True)
            for index in range(count):
                pixels = random.integers(0, 256, (40, 40, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{index}.jpg")
    return tmp_path / "images"


def break_image(path: Path) -> str:
    """Cut off the last third of a file, and return its path."""
    content = path.read_bytes()
    path.write_bytes(content[: 2 * len(content) // 3])
    return str(path)


SETTINGS: dict[str, Any] = {
    "arch": "efficientnet-lite0",
    "image_size": 32,
    "batch_size": 2,
    "epochs": 1,
    "workers": 1,
    "print_freq": 1,
    "device": "cpu",
}


def recipe(images: Path, **changes: Any) -> Recipe:
    return Recipe().replace({**SETTINGS, "workspace": str(images.parent / "run"), **changes})


def records(images: Path, kind: str) -> list[dict[str, Any]]:
    lines = (images.parent / "run" / "report.json").read_text().splitlines()
    return [record for record in map(json.loads, lines) if record["type"] == kind]


@pytest.fixture
def verified(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Files that have been verified so far, in this process."""
    files: list[str] = []
    verify = EncodedImage.verify

    def counted(image: EncodedImage) -> None:
        files.append(str(image.path))
        verify(image)

    monkeypatch.setattr(EncodedImage, "verify", counted)
    return files


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("split", ["train", "val"])
def test_a_broken_image_stops_the_run_before_the_first_step(
    images: Path, capfd: pytest.CaptureFixture[str], backend: str, split: str
) -> None:
    broken = break_image(images / split / "right" / "1.jpg")
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in SETTINGS.items()]
    workspace = f"--workspace={images.parent / 'run'}"
    assert main(["train", str(images), *flags, workspace, "--data-backend", backend]) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith(f"effnet: error: {broken}: can't be decoded: ")
    assert line.endswith("; fix or remove it, or give --on-bad-image skip")
    assert records(images, "parameters")
    assert not records(images, "iteration")
    (event,) = records(images, "event")
    assert event["data"].keys() == {"event", "split", "images"}
    assert event["data"]["split"] == split
    assert list(event["data"]["images"]) == [broken]


def test_all_are_listed_and_the_first_is_named(images: Path) -> None:
    places = ("train/left/3", "train/right/0", "val/left/2")
    broken = [break_image(images / f"{place}.jpg") for place in places]
    with pytest.raises(UserError) as raised:
        train(recipe(images), images)
    assert str(raised.value).startswith(f"{broken[0]}: can't be decoded: ")
    assert "nor can 2 more be decoded" in str(raised.value)
    assert f"effnet prepare check {images}" in str(raised.value)
    listed = [list(event["data"]["images"]) for event in records(images, "event")]
    assert listed == [broken[:2], broken[2:]]


def stopped(settings: Recipe, images: Path, home: str) -> str:
    os.environ["EFFNET_HOME"] = home
    with pytest.raises(UserError) as raised:
        train(settings, images)
    return str(raised.value)


@pytest.mark.slow
def test_all_processes_stop_alike(images: Path, verified: list[str]) -> None:
    broken = [
        break_image(images / f"{place}.jpg") for place in ("train/left/3", "train/right/0", "val/left/2")
    ]
    home = os.environ["EFFNET_HOME"]
    first, second = in_processes(2, stopped, recipe(images, batch_size=1), images, home)
    assert first == second
    assert first.startswith(f"{broken[0]}: can't be decoded: ")
    assert "nor can 2 more be decoded" in first
    assert not records(images, "iteration")
    assert sum(len(event["data"]["images"]) for event in records(images, "event")) == 3
    for name in broken:
        shutil.copy(images / "train" / "left" / "0.jpg", name)
    # One process knows what two have found.
    train(recipe(images), images)
    assert sorted(verified) == sorted(broken)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_broken_image_is_left_out_if_asked_for(images: Path, verified: list[str], backend: str) -> None:
    broken = break_image(images / "val" / "right" / "1.jpg")
    metrics = train(recipe(images, on_bad_image="skip", data_backend=backend), images)
    assert metrics["val.images"] == 5
    (event,) = records(images, "event")
    assert list(event["data"]["images"]) == [broken]
    assert verified == []


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("changes", [{"check_images": False}, {"prof": 9}])
def test_without_the_check_the_run_stops_at_the_batch(
    images: Path, verified: list[str], backend: str, changes: dict[str, Any]
) -> None:
    broken = break_image(images / "val" / "right" / "1.jpg")
    with pytest.raises(UserError, match=f"^{broken}: can't be decoded"):
        train(recipe(images, data_backend=backend, **changes), images)
    assert records(images, "iteration")
    assert verified == []


def test_what_is_sound_is_not_decoded_again_before_it_changes(images: Path, verified: list[str]) -> None:
    train(recipe(images, run_epochs=1, epochs=2), images)
    assert len(set(verified)) == len(verified) == IMAGES
    verified.clear()
    train(recipe(images, epochs=2, resume="auto"), images)
    assert verified == []
    replaced = images / "train" / "left" / "2.jpg"
    shutil.copy(images / "train" / "left" / "1.jpg", replaced)
    shutil.copy(replaced, images / "val" / "right" / "new.jpg")
    train(recipe(images), images)
    assert verified == [str(replaced), str(images / "val" / "right" / "new.jpg")]
    verified.clear()
    broken = break_image(replaced)
    for _ in range(2):  # what is broken is never taken for sound
        with pytest.raises(UserError, match=f"^{broken}: can't be decoded"):
            train(recipe(images), images)
    assert verified == [broken, broken]


def test_training_alone_leaves_validation_images_alone(images: Path, verified: list[str]) -> None:
    break_image(images / "val" / "right" / "1.jpg")
    train(recipe(images, training_only=True), images)
    assert {Path(file).parent.parent.name for file in verified} == {"train"}


def test_a_cache_that_cannot_be_written_is_no_error(images: Path, verified: list[str]) -> None:
    (images.parent / "home").write_text("a file where the folder should be")
    for _ in range(2):
        assert "val.top1" in train(recipe(images), images)
    assert len(verified) == 2 * IMAGES


def test_many_images_are_checked_in_rounds(
    images: Path, verified: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("effnet.training.preflight.ROUND", 5)
    broken = [break_image(images / "train" / f"{place}.jpg") for place in ("left/0", "right/5")]
    with pytest.raises(UserError, match=f"^{broken[0]}: .* nor can 1 more be decoded"):
        train(recipe(images), images)
    assert len(set(verified)) == len(verified) == IMAGES
    verified.clear()
    with pytest.raises(UserError):
        train(recipe(images), images)
    assert verified == broken


def test_packed_and_synthetic_images_are_not_checked(images: Path, verified: list[str]) -> None:
    train(recipe(images, data_backend="synthetic", num_classes=2, run_epochs=1, prof=1), None)
    assert main(["prepare", "pack", str(images), str(images.parent / "packed"), "-j", "0"]) == 0
    train(recipe(images, data_backend="packed"), images.parent / "packed")
    assert verified == []
