"""A file with weights of 8 bits says so on a CPU whose sums of them overflow."""

import logging
from pathlib import Path

import pytest

from effnet.data.preprocessing import Preprocessing
from effnet.export.trained import ModelChoice
from effnet.inference.engine import open_engine
from effnet.quantization.placement import place_quantizers
from effnet.weights import WeightsMetadata
from tests.phones import tiny
from tests.quantization.test_layers import ranged

pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    from effnet.export.onnx import export_onnx

    made = {}
    for bits in (7, 8):
        name = "efficientnet-quant-lite0"
        model = tiny(name)
        place_quantizers(model, "openvino", reduce_range=bits == 7)
        made[bits] = tmp_path_factory.mktemp("files") / f"{bits}.onnx"
        metadata = WeightsMetadata(name, Preprocessing(64, 64).to_dict())
        export_onnx(ranged(model), metadata, made[bits], target="openvino", tolerance=10.0)
    return made


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
@pytest.mark.parametrize(("bits", "overflows"), [(7, True), (8, True), (8, False)])
def test_a_warning_where_sums_overflow(
    files: dict[int, Path],
    engine: str,
    bits: int,
    overflows: bool,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    pytest.importorskip(engine)
    monkeypatch.setattr("effnet.export.facts.sums_overflow", lambda: overflows)
    with caplog.at_level(logging.WARNING, "effnet"):
        open_engine(ModelChoice(weights=files[bits], device="cpu"), engine)
    found = [record.getMessage() for record in caplog.records if "overflow" in record.getMessage()]
    assert [files[bits].name in message for message in found] == ([True] if bits == 8 and overflows else [])
