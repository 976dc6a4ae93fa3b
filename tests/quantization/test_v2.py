"""Quantization-aware training of V2-B0, and its file in the engines that run on a CPU."""

import math
from pathlib import Path

import pytest
import torch

from effnet import create_model
from effnet.cli import main
from effnet.models.layers import FusedMBConv
from effnet.quantization.layers import QuantConv2d, QuantFusedMBConv, quantizers_of
from effnet.quantization.model import build
from effnet.quantization.placement import place_quantizers
from effnet.weights import load_model
from tests.runs import CLASSES, networks_made_small, records, write_images

STEPS = 100


@pytest.mark.parametrize("member", ["s", "m", "l", "b0", "b1", "b2", "b3"])
def test_every_block_of_a_quantized_model_is_quantized(member: str) -> None:
    with torch.device("meta"):
        model = create_model(f"efficientnet-quant-v2-{member}")
        plain = create_model(f"efficientnet-v2-{member}")
    fused = [block for block in model.modules() if isinstance(block, FusedMBConv)]
    assert len(fused) == sum(stage.depth for stage in model.config.stages() if stage.kind == "fused")
    for block in fused:
        assert isinstance(block, QuantFusedMBConv)
        assert isinstance(block.proj.conv, QuantConv2d)
        assert hasattr(block, "residual_quantizer") == block.has_shortcut
    counts = [sum(value.numel() for value in each.parameters()) for each in (model, plain)]
    assert counts[0] == counts[1]


def test_onnxruntime_gets_both_inputs_of_a_fused_block_s_sum() -> None:
    model = create_model("efficientnet-quant-v2-b0")
    place_quantizers(model, "onnxruntime")
    on = {name for name, quantizer in quantizers_of(model).items() if quantizer.is_on}
    assert {"layers.1.block1.residual_quantizer", "layers.1.block1.branch_quantizer"} <= on
    assert {"layers.0.block0.proj.act._input_quantizer", "layers.0.block0.proj.act.gate_quantizer"} <= on


@pytest.mark.slow
@networks_made_small("efficientnet-v2-b0")
def test_training_and_export(tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    openvino = pytest.importorskip("openvino")
    images = tmp_path / "images"
    for split, count in (("train", 80), ("val", 8)):
        write_images(images / split, dict.fromkeys(CLASSES, count), coloured=True)
    workspace = tmp_path / "run"
    flags = (
        "--arch efficientnet-quant-v2-b0 --from-scratch --target onnxruntime --calib-batches 4 --image-size 32 "
        f"--batch-size 12 --epochs 5 --run-epochs 5 --workers 0 --lr 0.02 --print-freq 1 --device cpu "
        f"--workspace {workspace}"
    ).split()
    assert main(["quantize", str(images), *flags]) == 0
    losses = [record["data"]["train.loss"] for record in records(workspace, "iteration")]
    assert len(losses) == STEPS
    assert all(map(math.isfinite, losses))
    assert sum(losses[-20:]) < 0.9 * sum(losses[:20])
    checkpoint = str(workspace / "checkpoint.pth.tar")
    # Writing the file includes comparing onnxruntime's answers with PyTorch's.
    path = tmp_path / "model.onnx"
    flags = ["--pretrained-from-file", checkpoint, "--target", "onnxruntime", "--output", str(path)]
    assert main(["export", "onnx", *flags]) == 0
    model = load_model(checkpoint, build=build).eval()
    compiled = openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    session = onnxruntime.InferenceSession(str(path))
    x = torch.randn(16, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = model(x)
    for logits in (session.run(None, {"images": x.numpy()})[0], compiled(x.numpy())[0]):
        difference = torch.as_tensor(logits) - expected
        # Engines round some values to the neighbouring integer.
        assert difference.norm() <= 0.1 * expected.norm()
