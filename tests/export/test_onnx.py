"""Exported ONNX files give PyTorch's logits, say what they are, and load without a word."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from effnet.cli import main
from effnet.export.facts import read_metadata
from effnet.export.form import inference_form
from effnet.export.onnx import export_onnx
from effnet.runtime.errors import UserError
from effnet.weights import WeightsMetadata, create_model, save_weights

onnx = pytest.importorskip("onnx", reason="extra onnx")
onnxruntime = pytest.importorskip("onnxruntime", reason="extra onnx")

REPOSITORY = Path(__file__).resolve().parents[2]
MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)


def metadata_for(name: str, image_size: int = 64) -> WeightsMetadata:
    preprocessing = {
        "image_size": image_size,
        "resize": image_size + 8,
        "interpolation": "bicubic",
        "mean": MEAN,
        "std": STD,
    }
    return WeightsMetadata(name, preprocessing, classes=("ant", "bee", "cow"))


def trained(name: str) -> nn.Module:
    """A model whose BatchNorm has statistics worth folding."""
    torch.manual_seed(0)
    model = create_model(name, num_classes=3)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.5, 0.5)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.5, 0.5)
    return model.eval()


@pytest.mark.parametrize("name", ["efficientnet-b0", "efficientnet-widese-b0", "efficientnet-lite0"])
def test_the_inference_form_is_the_same_function(name: str) -> None:
    model = trained(name).double()
    x = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    lean = inference_form(model)
    assert torch.allclose(lean(x), model(x), rtol=1e-9, atol=1e-9)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in lean.modules())
    assert any(isinstance(module, nn.BatchNorm2d) for module in model.modules())


@pytest.mark.slow
@pytest.mark.parametrize(("name", "takes_bytes"), [("efficientnet-b0", False), ("efficientnet-lite0", True)])
def test_logits_of_any_batch(tmp_path: Path, name: str, takes_bytes: bool) -> None:
    model, path = trained(name), tmp_path / "model.onnx"
    exported = export_onnx(model, metadata_for(name), path, preprocessing_in_graph=takes_bytes)
    assert exported.batches == (1, 3, 8)
    assert exported.size == path.stat().st_size
    loaded = onnx.load(path)
    onnx.checker.check_model(loaded, full_check=True)
    assert exported.operators == len(loaded.graph.node)
    assert "BatchNormalization" not in {node.op_type for node in loaded.graph.node}
    assert str(REPOSITORY).encode() not in path.read_bytes()
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for batch in (1, 3, 5):
        pixels = np.random.default_rng(batch).integers(0, 256, (batch, 64, 64, 3), dtype=np.uint8)
        normalised = (
            ((pixels / 255 - np.array(MEAN)) / np.array(STD)).astype(np.float32).transpose(0, 3, 1, 2)
        )
        (ours,) = session.run(["logits"], {"images": pixels if takes_bytes else normalised})
        with torch.no_grad():
            theirs = model(torch.from_numpy(normalised))
        assert np.abs(ours - theirs.numpy()).max() < 1e-3


def test_the_file_knows_its_classes_and_preprocessing(tmp_path: Path) -> None:
    path, metadata = tmp_path / "model.onnx", metadata_for("efficientnet-lite0", 32)
    export_onnx(trained("efficientnet-lite0"), metadata, path, batch_size=2)
    stored = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    assert json.loads(stored["classes"]) == ["ant", "bee", "cow"]
    assert read_metadata(stored, path) == metadata
    with pytest.raises(UserError, match="effnet export onnx"):
        read_metadata({}, path)


class Quantized(nn.Module):
    """A convolution between fake quantizers, as the quantized models have them."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.register_buffer("scale", self.conv.weight.detach().abs().amax((1, 2, 3)) / 127)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.fake_quantize_per_tensor_affine(x, 0.02, 100, 0, 255)
        weight = torch.fake_quantize_per_channel_affine(
            self.conv.weight, self.scale, torch.zeros(4, dtype=torch.int32), 0, -128, 127
        )
        y = F.conv2d(x, weight, self.conv.bias).mean((2, 3))
        return torch.fake_quantize_per_tensor_affine(y, torch.tensor(0.01), torch.tensor(128), 0, 255)


def test_fake_quantizers_become_integers(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, path = Quantized(), tmp_path / "quantized.onnx"
    # A rounding may fall on the other side, which is one step of the last quantizer.
    export_onnx(model, metadata_for("efficientnet-b0", 32), path, tolerance=0.0101)
    graph = onnx.load(path).graph
    kinds = [node.op_type for node in graph.node]
    assert kinds.count("QuantizeLinear") == 2
    assert kinds.count("DequantizeLinear") == 3
    weight = next(tensor for tensor in graph.initializer if list(tensor.dims) == [4, 3, 3, 3])
    assert weight.data_type == onnx.TensorProto.INT8
    integers = (model.conv.weight / model.scale[:, None, None, None]).round().detach().numpy()
    assert np.array_equal(onnx.numpy_helper.to_array(weight), integers)
    zero_points = {
        tensor.data_type for tensor in graph.initializer for node in graph.node
        if node.op_type == "QuantizeLinear" and tensor.name == node.input[2]
    }  # fmt: skip
    assert zero_points == {onnx.TensorProto.UINT8}


def test_a_file_that_differs_is_not_written(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_text("the old one")
    with pytest.raises(UserError, match="differ from PyTorch"):
        export_onnx(trained("efficientnet-lite0"), metadata_for("x", 32), path, tolerance=0, batch_size=1)
    assert path.read_text() == "the old one"
    assert list(tmp_path.iterdir()) == [path]


def test_logits_that_are_no_numbers_are_not_written(tmp_path: Path) -> None:
    model = trained("efficientnet-lite0")
    with torch.no_grad():
        next(model.classifier.parameters())[0] = torch.nan
    with pytest.raises(UserError, match="differ from PyTorch's by nan"):
        export_onnx(model, metadata_for("x", 32), tmp_path / "model.onnx", batch_size=1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_the_document_s_command_and_a_silent_load(tmp_path: Path) -> None:
    weights = tmp_path / "weights.pth"
    model = trained("efficientnet-b0")
    save_weights(weights, model.state_dict(), metadata_for("efficientnet-b0"))
    flags = ["--arch", "efficientnet-b0", "--pretrained-from-file", str(weights), "-b", "4", "--trt", "True"]
    command = [sys.executable, "model2onnx.py", *flags, "--image-size", "48", "--device", "cpu"]
    path = tmp_path / "out.onnx"
    done = subprocess.run(
        [*command, "--output", str(path)], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    assert "operators" in done.stdout
    assert "MiB" in done.stdout
    assert len(done.stdout.splitlines()) == 1
    load = "import onnxruntime as o, sys; o.InferenceSession(sys.argv[1], providers=['CPUExecutionProvider'])"
    loaded = subprocess.run([sys.executable, "-c", load, path], capture_output=True, text=True, check=True)
    assert loaded.stdout + loaded.stderr == ""
    batch, _, height, _ = (
        size.dim_value for size in onnx.load(path).graph.input[0].type.tensor_type.shape.dim
    )
    assert (batch, height) == (4, 48)


def test_bad_input(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.touch()
    for flags, words in (
        (["--trt", "maybe"], "--trt"),
        (["-b", "0"], "--batch-size"),
        (["--pretrained-from-file", "/no/such.pth"], "/no/such.pth"),
    ):
        assert main(["export", "onnx", *flags]) == 2
        error = capsys.readouterr().err
        assert words in error
        assert len(error.splitlines()) == 1
