"""Every engine answers as the plain model in PyTorch does."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from effnet.cli import main
from effnet.export.onnx import export_onnx
from effnet.export.openvino import export_openvino
from effnet.export.trained import ModelChoice
from effnet.inference.engine import open_engine
from effnet.inference.engines import ENGINES, for_weights, kind_of_file
from effnet.runtime.errors import UserError
from effnet.weights import WeightsMetadata, create_model, load_model, save_weights
from tests.runs import PREPROCESSING, write_images

pytestmark = pytest.mark.usefixtures("small_networks")

CPU = torch.device("cpu")
CLASSES = ("ant", "bee", "cow", "dog", "eel")
SIDE = PREPROCESSING["image_size"]
METADATA = WeightsMetadata(
    "efficientnet-lite0",
    PREPROCESSING,
    padding="same",
    classes=CLASSES,
)
ON_CPU = [kind.name for kind in for_weights(CPU) if kind.name != "torch-compiled"]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "five.safetensors"
    save_weights(path, create_model("efficientnet-lite0", num_classes=5).state_dict(), METADATA)
    return path


@pytest.fixture(scope="module")
def files(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same model in every form that can be written here."""
    pytest.importorskip("onnx", reason="extra onnx")
    pytest.importorskip("openvino", reason="extra openvino")
    folder, model = tmp_path_factory.mktemp("exported"), load_model(weights)
    written = {
        "floats": export_onnx(model, METADATA, folder / "floats.onnx"),
        "bytes": export_onnx(model, METADATA, folder / "bytes.onnx", preprocessing_in_graph=True),
        "openvino": export_openvino(model, METADATA, folder / "openvino.xml"),
        "one": export_openvino(model, METADATA, folder / "one.xml", batch_size=1),
    }
    return {name: exported.path for name, exported in written.items()}


def pixels(count: int) -> np.ndarray:
    return np.random.default_rng(count).integers(0, 256, (count, SIDE, SIDE, 3), dtype=np.uint8)


def expected(weights: Path, images: np.ndarray) -> np.ndarray:
    """By hand: the unfolded model on images normalised in NumPy."""
    normalised = ((images / 255 - 0.5) / 0.2).transpose(0, 3, 1, 2)
    with torch.no_grad():
        logits = load_model(weights).eval()(torch.from_numpy(normalised).float())
    return logits.softmax(1).numpy()


@pytest.mark.parametrize("name", ON_CPU)
def test_weights_on_every_engine(weights: Path, name: str) -> None:
    engine = open_engine(ModelChoice(weights=weights, device="cpu"), name)
    assert engine.name == name
    assert engine.metadata.classes == CLASSES
    for count in (1, 3):
        answers = engine(pixels(count))
        assert answers.dtype == np.float32
        assert np.allclose(answers, expected(weights, pixels(count)), atol=1e-5)


@pytest.mark.parametrize(
    ("form", "name"),
    [("floats", "onnxruntime"), ("bytes", "onnxruntime"), ("floats", "openvino"), ("bytes", "openvino"),
     ("openvino", "openvino"), ("openvino", None), ("one", None)],
)  # fmt: skip
def test_files_on_every_engine(files: dict[str, Path], weights: Path, form: str, name: str | None) -> None:
    engine = open_engine(ModelChoice(weights=files[form], device="cpu"), name)
    assert engine.metadata == METADATA
    for count in (1,) if form == "one" else (1, 5, 2):
        assert np.allclose(engine(pixels(count)), expected(weights, pixels(count)), atol=1e-5)


@pytest.mark.slow
def test_compiled(weights: Path) -> None:
    engine = open_engine(ModelChoice(weights=weights, device="cpu"), "torch-compiled")
    assert np.allclose(engine(pixels(2)), expected(weights, pixels(2)), atol=1e-5)


def test_half_the_bits(weights: Path) -> None:
    engine = open_engine(ModelChoice(weights=weights, device="cpu", precision="bf16"), "torch")
    answers = engine(pixels(2))
    assert answers.dtype == np.float32
    difference = np.abs(answers - expected(weights, pixels(2))).max()
    assert 0 < difference < 0.05


def test_the_order_without_a_measurement() -> None:
    pytest.importorskip("openvino", reason="extra openvino")
    assert kind_of_file(Path("a.onnx"), CPU).name == "openvino"
    assert not ENGINES["tensorrt"].runs_on(CPU)


def test_evaluation_gives_the_same_metrics(
    capsys: pytest.CaptureFixture[str], files: dict[str, Path], weights: Path, tmp_path: Path
) -> None:
    write_images(tmp_path / "val", {"bee": 3, "dog": 4})
    metrics = {}
    for arguments in (
        ("--pretrained-from-file", str(weights)),
        (str(weights), "--engine", "auto"),
        (str(files["bytes"]), "--engine", "onnxruntime"),
        (str(files["openvino"]),),
    ):
        command = ["evaluate", str(tmp_path), *arguments, "--json", "-j", "0", "--device", "cpu", "-b", "3"]
        assert main([*command, "--workspace", str(tmp_path)]) == 0
        metrics[arguments] = json.loads(capsys.readouterr().out.splitlines()[-1])
    first, *others = metrics.values()
    assert first["val.images"] == 7
    for other in others:
        for name in ("val.images", "val.top1", "val.top5", "model"):
            assert other[name] == first[name]
        assert other["val.loss"] == pytest.approx(first["val.loss"], abs=1e-5)


def test_classification_with_an_exported_file(
    capsys: pytest.CaptureFixture[str], files: dict[str, Path], tmp_path: Path
) -> None:
    photo = tmp_path / "photo.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)).save(photo)
    for arguments in ([str(files["floats"]), str(photo)], [str(photo), str(files["openvino"])]):
        assert main(["classify", "--json", *arguments]) == 0
        (image,) = json.loads(capsys.readouterr().out)["images"]
        assert {answer["name"] for answer in image["predictions"]} == set(CLASSES)


@pytest.mark.parametrize(
    ("form", "changes", "engine", "words"),
    [
        ("floats", {"image_size": 64}, None, "--image-size"),
        ("floats", {"arch": "efficientnet-b0"}, None, "--arch"),
        ("floats", {"precision": "fp16"}, "onnxruntime", "--precision"),
        ("floats", {"precision": "fp16"}, "openvino", "--precision"),
        ("floats", {}, "torch", "reads weights"),
        ("openvino", {}, "onnxruntime", "reads .onnx"),
        ("floats", {}, "caffe", "--engine"),
    ],
)
def test_what_does_not_go_together(
    files: dict[str, Path], form: str, changes: dict, engine: str | None, words: str
) -> None:
    with pytest.raises(UserError, match=words):
        open_engine(ModelChoice(weights=files[form], device="cpu", **changes), engine)


@pytest.mark.parametrize(
    ("name", "engine"), [("x.onnx", "onnxruntime"), ("x.onnx", "openvino"), ("x.xml", None)]
)
@pytest.mark.parametrize("content", [None, b"", b"not a model"])
def test_damaged_files(tmp_path: Path, name: str, engine: str | None, content: bytes | None) -> None:
    pytest.importorskip("onnxruntime", reason="extra onnx")
    pytest.importorskip("openvino", reason="extra openvino")
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=name) as caught:
        open_engine(ModelChoice(weights=tmp_path / name, device="cpu"), engine)
    assert len(str(caught.value).splitlines()) == 1
