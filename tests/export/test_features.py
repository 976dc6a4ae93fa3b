"""Files of V2, of models with several labels, and of features alone: PyTorch's answers in onnxruntime and OpenVINO."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from effnet.cli import main
from effnet.export.facts import FEATURES_KEY, THRESHOLDS_KEY
from effnet.export.onnx import export_onnx
from effnet.export.openvino import export_openvino
from effnet.export.reference import example_images
from effnet.export.trained import ModelChoice
from effnet.inference.engine import open_engine
from effnet.models.efficientnet import EfficientNet
from effnet.recipe.choices import FeaturesName
from effnet.runtime.errors import UserError
from effnet.weights import WeightsMetadata
from tests.quantization.test_layers import small
from tests.runs import PREPROCESSING

onnxruntime = pytest.importorskip("onnxruntime", reason="extra onnx")
openvino = pytest.importorskip("openvino", reason="extra openvino")

CLASSES = tuple(f"class {index}" for index in range(10))
THRESHOLDS = tuple(0.05 * (1 + index) for index in range(10))
V2 = "efficientnet-v2-b0"
Array = np.ndarray[Any, Any]
Export = Callable[..., Any]
FORMS: list[tuple[Export, str]] = [(export_onnx, "model.onnx"), (export_openvino, "model.xml")]


@pytest.fixture(scope="module")
def v2() -> EfficientNet:
    return small(V2)


@pytest.fixture
def metadata() -> WeightsMetadata:
    return WeightsMetadata(V2, PREPROCESSING, classes=CLASSES, thresholds=THRESHOLDS)


def run(path: Path, images: Tensor) -> tuple[dict[str, Array], dict[str, str]]:
    """The outputs of a file by name and its metadata, without a line of this project."""
    if path.suffix == ".onnx":
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        names = [output.name for output in session.get_outputs()]
        found = session.run(names, {"images": images.numpy()})
        return dict(zip(names, found, strict=True)), session.get_modelmeta().custom_metadata_map
    model = openvino.Core().read_model(path)
    compiled = openvino.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    answers = {port.any_name: value for port, value in compiled(images.numpy()).items()}
    return answers, {key: value.astype(str) for key, value in model.get_rt_info()["framework"].items()}


def images() -> Tensor:
    from effnet.data.preprocessing import Preprocessing

    return example_images(Preprocessing.from_dict(PREPROCESSING), 5, takes_bytes=False)


@pytest.mark.parametrize(("export", "name"), FORMS)
def test_v2_with_several_labels(
    export: Export, name: str, v2: EfficientNet, metadata: WeightsMetadata, tmp_path: Path
) -> None:
    path = tmp_path / name
    export(v2, metadata, path, probabilities=True)
    found, stored = run(path, images())
    with torch.inference_mode():
        logits = v2(images())
    np.testing.assert_allclose(found["logits"], logits, atol=1e-3)
    np.testing.assert_allclose(found["probabilities"], logits.sigmoid(), atol=1e-3)
    assert json.loads(stored[THRESHOLDS_KEY]) == list(THRESHOLDS)
    engine = open_engine(ModelChoice(weights=path, device="cpu"))
    assert engine.metadata.thresholds == THRESHOLDS


def before(module: nn.Module, model: nn.Module) -> Tensor:
    """The input of a part of a model."""
    seen: list[Tensor] = []
    handle = module.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.inference_mode():
        model(images())
    handle.remove()
    return seen[0]


@pytest.mark.parametrize(("export", "name", "kind"), [(*FORMS[0], "pooled"), (*FORMS[1], "map")])
def test_features(
    export: Export,
    name: str,
    kind: FeaturesName,
    v2: EfficientNet,
    metadata: WeightsMetadata,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / name
    written = export(v2, metadata, path, features=kind)
    found, stored = run(path, images())
    wanted = before(v2.classifier.fc if kind == "pooled" else v2.classifier, v2)
    assert list(found) == ["features"]
    assert wanted.ndim == (2 if kind == "pooled" else 4)
    np.testing.assert_allclose(found["features"], wanted, atol=1e-3)
    assert written.difference < 1e-3 < wanted.abs().max()
    assert stored[FEATURES_KEY] == kind
    assert json.loads(stored["effnet"])["preprocessing"] == metadata.to_dict()["preprocessing"]
    photo = tmp_path / "photo.png"
    Image.new("RGB", (40, 40)).save(photo)
    assert main(["classify", str(path), str(photo), "--device", "cpu"]) == 2
    error = capsys.readouterr().err.splitlines()
    assert len(error) == 1
    assert "returns features, not logits of classes; export it without --features" in error[0]


class OtherFeatures(EfficientNet):
    """A model whose graph has other features than it has in PyTorch."""

    def extract_features(self, x: Tensor) -> dict[str, Tensor]:
        features = super().extract_features(x)
        return {
            **features,
            "features": features["features"] * (1.5 if torch.compiler.is_exporting() else 1.0),
        }


def test_features_pass_the_gate_or_are_not_written(
    v2: EfficientNet, metadata: WeightsMetadata, tmp_path: Path
) -> None:
    other = OtherFeatures(v2.config).eval()
    path = tmp_path / "model.onnx"
    with pytest.raises(UserError, match="differ from PyTorch's by"):
        export_onnx(other, metadata, path, batch_size=1, features="pooled")
    assert not path.exists()


def test_what_has_no_features_is_refused(tmp_path: Path, metadata: WeightsMetadata) -> None:
    with pytest.raises(UserError, match="--features: Sequential has no extract_features"):
        export_onnx(nn.Sequential(nn.Flatten()), metadata, tmp_path / "model.onnx", features="map")
    with pytest.raises(UserError, match="--features: .* no --probabilities"):
        export_onnx(small(V2), metadata, tmp_path / "m.onnx", features="map", probabilities=True)
