"""`effnet.fit` on PyTorch data sets: the same run as on the files that they hold."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset
from torchvision.datasets import ImageFolder

import effnet
from effnet.training.checkpoint import read_checkpoint
from tests.runs import CLASSES

SETTINGS: dict[str, Any] = {
    "arch": "efficientnet-lite0",
    "image_size": 32,
    "batch_size": 8,
    "epochs": 2,
    "workers": 0,
    "lr": 0.01,
    "device": "cpu",
    "quiet": True,
}


@pytest.fixture(scope="module")
def losslessly(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The images as PNG files, which Pillow and our decoder read alike."""
    root = tmp_path_factory.mktemp("png")
    for path in images.rglob("*.jpg"):
        copy = root / path.relative_to(images).with_suffix(".png")
        copy.parent.mkdir(parents=True, exist_ok=True)
        Image.open(path).save(copy)
    return root


def weights(run: effnet.Run) -> dict[str, torch.Tensor]:
    tensors: dict[str, torch.Tensor] = read_checkpoint(run.workspace / "checkpoint.pth.tar")["state_dict"]
    return tensors


def assert_equal(one: effnet.Run, other: effnet.Run) -> None:
    left, right = weights(one), weights(other)
    assert all(torch.equal(left[name], right[name]) for name in left)
    keys = ("train.loss", "val.loss", "val.top1")
    assert [{key: row[key] for key in keys} for row in one.history] == [
        {key: row[key] for key in keys} for row in other.history
    ]


@pytest.fixture(scope="module")
def of_files(losslessly: Path, tmp_path_factory: pytest.TempPathFactory) -> effnet.Run:
    return effnet.fit(losslessly, workspace=str(tmp_path_factory.mktemp("files")), **SETTINGS)


def test_a_pair_gives_the_run_of_its_files(losslessly: Path, of_files: effnet.Run, tmp_path: Path) -> None:
    train, val = (ImageFolder(str(losslessly / split)) for split in ("train", "val"))
    run = effnet.fit((train, val), workspace=str(tmp_path), **{**SETTINGS, "workers": 2})
    assert_equal(run, of_files)
    assert run.model.get_classifier().out_features == len(CLASSES)
    assert run.classifier.classes == CLASSES
    expected = of_files.evaluate(workers=0, quiet=True)
    run = effnet.Run(run.workspace, data={"train": train, "val": val})
    for found in (run.evaluate(workers=0, quiet=True), run.evaluate(val, workers=0)):
        assert found["val.loss"] == pytest.approx(expected["val.loss"], rel=1e-6)


@pytest.mark.slow
def test_one_data_set_is_divided_as_a_folder_is(losslessly: Path, tmp_path: Path) -> None:
    settings = {**SETTINGS, "val_split": 0.3, "seed": 5}
    folder = effnet.fit(losslessly / "train", workspace=str(tmp_path / "folder"), **settings)
    data = ImageFolder(str(losslessly / "train"))
    run = effnet.fit(data, workspace=str(tmp_path / "run"), **settings)
    assert_equal(run, folder)
    assert run.evaluate(workers=0, quiet=True)["val.images"] == folder.metrics["val.images"] == 11
    # Another data set, whose items have the same numbers, is validated as a whole.
    assert run.evaluate(ImageFolder(str(losslessly / "val")), workers=0)["val.images"] == 15


class Drawn(Dataset[Any]):
    """Items that are random themselves, and that can't be pickled into a checkpoint."""

    def __init__(self) -> None:
        self.never = lambda: None

    def __len__(self) -> int:
        return 40

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        tint = torch.tensor([index % 2, 1 - index % 2, 0]).mul(150)[:, None, None]
        return (torch.randint(0, 100, (3, 40, 40)) + tint).to(torch.uint8), index % 2


def test_a_run_on_random_items_resumes_bit_for_bit(tmp_path: Path) -> None:
    straight = effnet.fit(Drawn(), workspace=str(tmp_path / "straight"), **SETTINGS)
    effnet.fit(Drawn(), workspace=str(tmp_path / "parts"), **SETTINGS, run_epochs=1)
    parts = effnet.fit(
        Drawn(), workspace=str(tmp_path / "parts"), resume="auto", **{**SETTINGS, "workers": 1}
    )
    assert_equal(parts, straight)
    other = Drawn()
    other.fingerprint = "other"  # type: ignore[attr-defined]
    with pytest.raises(effnet.UserError, match="none of its images are of the run's data"):
        effnet.fit(other, workspace=str(tmp_path / "parts"), resume="auto", **SETTINGS)


class Broken(Drawn):
    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        if index == 7:
            raise FileNotFoundError(2, "No such file or directory", "7.jpg")
        return super().__getitem__(index)


def test_broken_items(tmp_path: Path) -> None:
    data = Broken()
    data.targets = [n % 2 for n in range(40)]  # type: ignore[attr-defined]
    with pytest.raises(effnet.UserError, match=r"Broken: item 7: can't be read.*--on-bad-image skip"):
        effnet.fit(data, workspace=str(tmp_path / "a"), **SETTINGS)
    run = effnet.fit(data, workspace=str(tmp_path / "b"), on_bad_image="skip", **SETTINGS)
    assert run.history[-1]["train.loss"] > 0


def test_what_is_refused(tmp_path: Path) -> None:
    with pytest.raises(effnet.UserError, match="pass a path, a PyTorch Dataset"):
        effnet.fit(7, workspace=str(tmp_path), **SETTINGS)
    with pytest.raises(effnet.UserError, match="pass a path, a PyTorch Dataset"):
        effnet.fit({"train": Drawn(), "test": Drawn()}, workspace=str(tmp_path), **SETTINGS)
    with pytest.raises(effnet.UserError, match="no data set for val"):
        effnet.fit({"train": Drawn()}, workspace=str(tmp_path), **SETTINGS)
    with pytest.raises(effnet.UserError, match="--data-backend packed reads no PyTorch Dataset"):
        effnet.fit(Drawn(), workspace=str(tmp_path), data_backend="packed", **SETTINGS)


@pytest.mark.slow
def test_a_run_on_a_data_set_is_quantized_on_it(tmp_path: Path) -> None:
    run = effnet.fit(Drawn(), workspace=str(tmp_path), seed=3, val_split=0.25, **SETTINGS)
    quantized = run.quantize(target="onnxruntime", calib_batches=1, workers=0, batch_size=8, quiet=True)
    assert quantized.metrics["val.images"] == 10
    assert np.isfinite(quantized.metrics["val.loss"])
