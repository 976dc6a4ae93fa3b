"""Output of `effnet export tensorrt` without TensorRT: all but the engine, and the command that builds it."""

import json
from pathlib import Path

import pytest
import torch

from effnet.cli import main
from effnet.export.facts import read_metadata
from effnet.export.tensorrt import is_installed
from effnet.weights import WeightsMetadata, create_model, save_weights

pytestmark = pytest.mark.usefixtures("small_networks")

onnx = pytest.importorskip("onnx", reason="extra onnx")


@pytest.mark.skipif(torch.cuda.is_available() and is_installed(), reason="TensorRT would build")
def test_command_files_and_exit_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    metadata = WeightsMetadata(
        "efficientnet-lite0",
        {"image_size": 32, "resize": 36, "interpolation": "bicubic", "mean": [0.5] * 3, "std": [0.2] * 3},
        padding="same",
    )
    weights, engine = tmp_path / "weights.pth", tmp_path / "some engine.engine"
    save_weights(weights, create_model("efficientnet-lite0", num_classes=3).state_dict(), metadata)
    flags = ["--pretrained-from-file", str(weights), "--output", str(engine), "-b", "4"]
    assert main(["export", "tensorrt", *flags, "--max-batch-size", "16"]) == 3
    *_, said, command = capsys.readouterr().out.splitlines()
    assert "has not been run" in said
    assert command == (
        f"trtexec '--onnx={engine}.onnx' '--saveEngine={engine}' --minShapes=images:1x3x32x32 "
        "--optShapes=images:4x3x32x32 --maxShapes=images:16x3x32x32 --stronglyTyped"
    )
    assert not engine.exists()
    facts = json.loads(engine.with_name("some engine.engine.json").read_text())
    assert read_metadata(facts, engine) == metadata
    assert facts["precision"] == "fp16"
    graph = onnx.load(engine.with_name("some engine.engine.onnx")).graph
    kinds = {tensor.data_type for tensor in graph.initializer if len(tensor.dims) == 4}
    assert kinds == {onnx.TensorProto.FLOAT16}
    assert graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    assert main(["export", "tensorrt", *flags, "--max-batch-size", "2"]) == 2
    assert "--max-batch-size" in capsys.readouterr().err
