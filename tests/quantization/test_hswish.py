"""B0 with hard-swish: SiLU's weights, and an activation that stands in the INT8 graph as one operator."""

from pathlib import Path

import pytest
import torch

from effnet import create_model
from effnet.data.preprocessing import Preprocessing
from effnet.quantization.layers import quantizers_of
from effnet.quantization.model import build
from effnet.weights import WeightsMetadata, load_model, save_weights
from tests.phones import tiny
from tests.quantization.test_layers import ranged


def test_weights_of_silu_start_it(tmp_path: Path) -> None:
    source = create_model("efficientnet-b0", num_classes=3).eval()
    save_weights(tmp_path / "b0.pth", source.state_dict())
    made = load_model(tmp_path / "b0.pth", name="efficientnet-quant-hswish-b0", build=build).eval()
    for key, value in source.state_dict().items():
        torch.testing.assert_close(made.state_dict()[key].reshape(value.shape), value, rtol=0, atol=0)
    x = torch.randn(2, 3, 64, 64)
    for quantizer in quantizers_of(made).values():
        quantizer.switch(False)
    with torch.no_grad():
        wanted, found = source(x), made(x)
        for module in source.modules():
            if hasattr(module, "act") and isinstance(module.act, torch.nn.SiLU):
                module.act = torch.nn.Hardswish()
        torch.testing.assert_close(found, source(x))
    assert not torch.allclose(found, wanted)


def test_engines_get_one_operator(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    from effnet.export.onnx import export_onnx

    files = {}
    for name in ("efficientnet-quant-b0", "efficientnet-quant-hswish-b0"):
        metadata = WeightsMetadata(name, Preprocessing(64, 64).to_dict())
        files[name] = tmp_path / f"{name}.onnx"
        export_onnx(ranged(tiny(name)), metadata, files[name], target="openvino", tolerance=1.0)
    silu, hard = ([node.op_type for node in onnx.load(file).graph.node] for file in files.values())
    gates = hard.count("Sigmoid")  # of squeeze-and-excitation
    assert hard.count("HardSwish") == silu.count("Sigmoid") - gates > gates > 0
    assert len(silu) - len(hard) == hard.count("HardSwish")
