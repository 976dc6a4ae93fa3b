"""Quantized models as ONNX: integers where the engine wants them, and the fake-quantized model's answers."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from effnet import create_model
from effnet.data import Batch
from effnet.data.decode import EncodedImage
from effnet.data.preprocessing import Preprocessing
from effnet.data.transforms import ValTransform
from effnet.export.onnx import export_onnx
from effnet.export.openvino import export_openvino
from effnet.models.config import MODEL_CONFIGS
from effnet.models.efficientnet import EfficientNet
from effnet.quantization.calibrate import calibrate
from effnet.quantization.layers import quantizers_of
from effnet.quantization.model import build
from effnet.quantization.placement import place_quantizers
from effnet.recipe import QuantizationSettings
from effnet.recipe.choices import TargetName
from effnet.runtime.precision import Precision
from effnet.runtime.processes import Processes
from effnet.training.step import Normalise
from effnet.weights import WeightsMetadata

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")

CPU = torch.device("cpu")
SIZE = 64


def tiny(name: str) -> EfficientNet:
    """A model of two stages, one with a shortcut: converters take about a second for each layer."""
    torch.manual_seed(0)
    config = MODEL_CONFIGS[name]
    stages = config.base_stages[:2]
    model = build(replace(config, width=0.25, num_classes=10, base_stages=stages)).train()
    for _ in range(3):
        model(torch.randn(8, 3, SIZE, SIZE))
    return model.eval()


def calibrated(
    model: EfficientNet, target: TargetName, images: torch.Tensor, metadata: WeightsMetadata
) -> EfficientNet:
    place_quantizers(model, target)
    calibrate(
        model,
        iter([Batch(part, torch.zeros(len(part)), torch.arange(len(part))) for part in images.split(20)]),
        Preprocessing.from_dict(metadata.preprocessing),
        Precision(None, CPU),
        Processes.alone(CPU),
        QuantizationSettings(target=target),
    )
    return model.eval()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "target"),
    [
        ("efficientnet-quant-b0", "onnxruntime"),
        ("efficientnet-quant-b0", "tensorrt"),
        ("efficientnet-quant-lite0", "openvino"),
    ],
)
def test_integers_in_the_file(
    name: str, target: TargetName, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    metadata = WeightsMetadata(name, Preprocessing(SIZE, SIZE).to_dict())
    pixels = torch.randint(0, 256, (40, 3, SIZE, SIZE), dtype=torch.uint8)
    model = calibrated(tiny(name), target, pixels, metadata)
    path = tmp_path / "model.onnx"
    exported = export_onnx(model, metadata, path, target=target)
    assert exported.batches == (1, 3, 8)
    assert not exported.overflows
    assert capfd.readouterr().err == ""  # onnxruntime warns there
    graph = onnx.load(path).graph
    kinds = Counter(node.op_type for node in graph.node)
    on = [quantizer for quantizer in quantizers_of(model).values() if quantizer.is_on]
    weights = sum(bool(quantizer.shape) for quantizer in on)
    # One pair for each quantizer, or fewer where several see the same tensor; weights are stored as integers.
    assert 0 < kinds["QuantizeLinear"] <= len(on) - weights
    assert kinds["DequantizeLinear"] == kinds["QuantizeLinear"] + weights
    assert "BatchNormalization" not in kinds
    types = {tensor.name: tensor.data_type for tensor in graph.initializer}
    zero_points = {types[node.input[2]] for node in graph.node if node.op_type == "QuantizeLinear"}
    assert zero_points == {onnx.TensorProto.INT8 if target == "tensorrt" else onnx.TensorProto.UINT8}
    # Kernels and the classifier's matrix are stored as bytes.
    floats = [tensor for tensor in graph.initializer if tensor.data_type == onnx.TensorProto.FLOAT]
    assert max(int(np.prod(tensor.dims)) for tensor in floats) <= 1280


@pytest.mark.slow
@pytest.mark.parametrize("target", ["onnxruntime", "openvino"])
def test_photographs_keep_their_classes(target: TargetName, shared_dir: Path, tmp_path: Path) -> None:
    """EfficientNet-Lite0 on the sample of ImageNet: 100 photographs to calibrate, the other 326 to judge."""
    openvino = pytest.importorskip("openvino")
    wnids = (shared_dir / "data/imagenet-sample/wnids.txt").read_text().split()
    files = sorted((shared_dir / "data/imagenet-sample/val").glob("*/*"))
    chosen = {index * len(files) // 100 for index in range(100)}
    model = create_model("efficientnet-quant-lite0", weights="google")
    assert model.metadata is not None
    preprocessing = Preprocessing.from_dict(model.metadata.preprocessing)
    transform = ValTransform(preprocessing)
    pixels = torch.from_numpy(np.stack([transform(EncodedImage(file)) for file in files])).permute(0, 3, 1, 2)
    kept = [index for index in range(len(files)) if index not in chosen]
    images = Normalise(preprocessing)(pixels[kept])
    classes = torch.tensor([wnids.index(files[index].parent.name) for index in kept])
    model.eval()

    def answers(run: object) -> torch.Tensor:
        assert callable(run)
        return torch.cat([torch.as_tensor(run(part)).argmax(1) for part in images.split(16)])

    with torch.inference_mode():
        in_float = answers(model)
        simulated = answers(calibrated(model, target, pixels[sorted(chosen)], model.metadata))
    if target == "onnxruntime":
        export_onnx(model, model.metadata, tmp_path / "model.onnx", target=target)
        session = ort.InferenceSession(str(tmp_path / "model.onnx"))
        ours = answers(lambda part: session.run(None, {"images": part.numpy()})[0])
    else:
        export_openvino(model, model.metadata, tmp_path / "model.xml")
        compiled = openvino.Core().compile_model(
            tmp_path / "model.xml", "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
        )
        ours = answers(lambda part: compiled(part.numpy())[0].copy())
    assert len(classes) == 326
    assert (ours == classes).sum() >= (in_float == classes).sum() - 3  # a point is 3.26 of them
    assert (ours == simulated).float().mean() >= 0.98
