"""Exported files that resize images themselves answer as PyTorch's validation does."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from effnet.cli import main
from effnet.data.packed import RawImage
from effnet.data.preprocessing import Preprocessing
from effnet.data.transforms import ValTransform
from effnet.export.onnx import export_onnx
from effnet.export.openvino import export_openvino
from effnet.export.resize import ResizeAndCrop
from effnet.export.session import open_session
from effnet.export.whole import picture
from effnet.inference.classifier import load
from effnet.runtime.errors import UserError
from effnet.weights import WeightsMetadata, create_model, save_weights
from effnet.weights.confidence import Confidence
from tests.runs import write_images

onnxruntime = pytest.importorskip("onnxruntime", reason="extra onnx")

CLASSES = ("ant", "bee", "cow")
PREPROCESSING = {
    "image_size": 32,
    "resize": 37,
    "interpolation": "bicubic",
    "mean": [0.4, 0.5, 0.6],
    "std": [0.2, 0.25, 0.3],
}
TEMPERATURE = 1.7
SIZES = [
    (40, 48),
    (53, 41),
    (20, 31),
    (37, 37),
    (38, 37),
    (101, 20),
    (19, 97),
    (1, 1),
    (2, 11),
    (293, 523),
    (523, 293),
]


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear", "nearest"])
@pytest.mark.parametrize(("side", "resize"), [(32, 37), (60, 64)])
def test_pixels_are_those_of_validation(interpolation: str, side: int, resize: int) -> None:
    preprocessing = Preprocessing(side, resize, interpolation)
    graph, transform = ResizeAndCrop(preprocessing), ValTransform(preprocessing)
    for size in SIZES:
        pixels = picture(*size, seed=0)
        wanted = transform(RawImage(pixels)).astype(np.int16)
        found = graph(torch.from_numpy(pixels)[None])[0].permute(1, 2, 0).numpy()
        difference = np.abs(found - wanted)
        assert found.shape == (side, side, 3)
        assert difference.max() <= (0 if interpolation == "nearest" else 2), size
        assert (difference > 0).mean() < 0.02, size


def trained() -> nn.Module:
    """A network whose logits say where something is, so that another crop or filter changes them."""
    torch.manual_seed(0)
    model = create_model("efficientnet-lite0", num_classes=3)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.5, 0.5)
    return model.eval()


def metadata(**changes: Any) -> WeightsMetadata:
    return WeightsMetadata("efficientnet-lite0", PREPROCESSING, padding="same", classes=CLASSES, **changes)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "three.pth"
    save_weights(path, trained().state_dict(), metadata(confidence=Confidence(TEMPERATURE)))
    return path


@pytest.fixture(scope="module")
def exported(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    pytest.importorskip("openvino", reason="extra openvino")
    pytest.importorskip("onnxruntime_extensions", reason="extra onnx-decode")
    folder = tmp_path_factory.mktemp("exported")
    wanted = {
        "resize.onnx": ("onnx", "resize"),
        "jpeg.onnx": ("onnx", "jpeg"),
        "resize.xml": ("openvino", "resize"),
    }
    for name, (form, decode) in wanted.items():
        flags = ["--pretrained-from-file", str(weights), "--output", str(folder / name), "--device", "cpu"]
        assert main(["export", form, "--decode", decode, "--probabilities", *flags]) == 0
    return {name: folder / name for name in wanted}


FILES = ("resize.onnx", "jpeg.onnx", "resize.xml")


@pytest.mark.parametrize("name", FILES)
def test_whole_images_get_the_answers_of_the_weights(
    name: str, exported: dict[str, Path], weights: Path
) -> None:
    images = [picture(*size, seed=number) for number, size in enumerate(SIZES)]
    wanted = load(weights).probabilities(images)
    found = load(exported[name]).probabilities(images)
    assert wanted.std(0).min() > 0.005  # the answers differ from image to image
    assert np.abs(found - wanted).max() < 0.001


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_evaluated_like_the_weights(
    name: str, exported: dict[str, Path], weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_images(tmp_path / "val", {"ant": 3, "bee": 4, "cow": 2})
    metrics = []
    for path in (weights, exported[name]):
        flags = ["--pretrained-from-file", str(path), "--workspace", str(tmp_path), "--device", "cpu"]
        assert main(["evaluate", str(tmp_path), "--json", "-j", "0", *flags]) == 0
        metrics.append(json.loads(capsys.readouterr().out.splitlines()[-1]))
    assert metrics[1]["val.images"] == 9
    assert metrics[1]["val.top1"] == metrics[0]["val.top1"]
    assert metrics[1]["val.loss"] == pytest.approx(metrics[0]["val.loss"], abs=0.01)


def test_probabilities_have_the_temperature(exported: dict[str, Path]) -> None:
    images = np.stack([picture(40, 48, seed=number) for number in range(3)])
    logits, probabilities = open_session(exported["resize.onnx"]).run(
        ["logits", "probabilities"], {"images": images}
    )
    scaled = np.exp(logits / TEMPERATURE)
    assert np.abs(probabilities - scaled / scaled.sum(1, keepdims=True)).max() < 1e-5


def test_the_bytes_of_a_file_are_decoded(exported: dict[str, Path], weights: Path, tmp_path: Path) -> None:
    session = open_session(exported["jpeg.onnx"])
    for name in ("picture.jpg", "picture.png"):
        path = tmp_path / name
        Image.fromarray(picture(60, 47, seed=3)).save(path, **({"subsampling": 0} if "jpg" in name else {}))
        (found,) = session.run(["probabilities"], {"images": np.fromfile(path, dtype=np.uint8)})
        assert np.abs(found - load(weights).probabilities(path)).max() < 0.001


@pytest.mark.parametrize("flag", ["--resize", "--interpolation"])
def test_another_resize_is_refused(
    flag: str, exported: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_images(tmp_path / "val", {"ant": 1, "bee": 1, "cow": 1})
    flags = ["--pretrained-from-file", str(exported["resize.onnx"]), "--workspace", str(tmp_path)]
    value = "64" if flag == "--resize" else "bilinear"
    assert main(["evaluate", str(tmp_path), "-j", "0", *flags, flag, value]) == 2
    assert "resizes images itself, to 37 px, bicubic" in capsys.readouterr().err


class OtherFilter(ResizeAndCrop):
    def __init__(self, preprocessing: Preprocessing) -> None:
        super().__init__(preprocessing)
        self.filter = "bilinear"


class OtherCrop(ResizeAndCrop):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return super().forward(images).roll(1, 3)


@pytest.mark.parametrize("other", [OtherFilter, OtherCrop])
def test_another_graph_is_not_written(
    other: type[ResizeAndCrop], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("effnet.export.graph.ResizeAndCrop", other)
    with pytest.raises(UserError, match="its logits differ from PyTorch's"):
        export_onnx(trained(), metadata(), tmp_path / "other.onnx", decode="resize")
    assert not list(tmp_path.iterdir())


def test_what_can_not_be_decoded_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="one image in a call"):
        export_onnx(trained(), metadata(), tmp_path / "other.onnx", decode="jpeg", batch_size=4)
    with pytest.raises(UserError, match="decodes no image files"):
        export_openvino(trained(), metadata(), tmp_path / "other.xml", decode="jpeg")


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_photographs(name: str, shared_dir: Path, tmp_path: Path) -> None:
    """Every tenth photograph of the sample."""
    form = "openvino" if name.endswith("xml") else "onnx"
    pytest.importorskip(form, reason="extras onnx, openvino")
    pytest.importorskip("onnxruntime_extensions", reason="extra onnx-decode")
    files = sorted((shared_dir / "data/imagenet-sample/val").glob("*/*"))[::10]
    decode = "jpeg" if name.startswith("jpeg") else "resize"
    flags = ["--arch", "efficientnet-lite0", "--decode", decode, "--probabilities", "--device", "cpu"]
    assert main(["export", form, *flags, "--output", str(tmp_path / name)]) == 0
    wanted = load("efficientnet-lite0").probabilities(files)
    if decode == "jpeg":
        session = open_session(tmp_path / name)
        taken = [{"images": np.fromfile(file, dtype=np.uint8)} for file in files]
        found = np.concatenate([session.run(["probabilities"], each)[0] for each in taken])
    else:
        found = load(tmp_path / name).probabilities(files)
    assert (found.argmax(1) == wanted.argmax(1)).all()
    assert np.abs(found - wanted).max(1).mean() < 0.01
