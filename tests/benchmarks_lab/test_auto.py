"""The measurement of `--engine auto`, on the smallest images, and what its table says of given times."""

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.auto import report
from benchmarks.commands import main


def run(ratio: float, spread: float) -> dict[str, Any]:
    row = {"images_per_second": 80.0, "latency": 0.1, "ratio_to_torchvision": 2.0, "spread": spread}
    facts = {"arch": "efficientnet-b0", "image_size": 224, "batch_size": 8, "chosen": "openvino streams=2"}
    rows = dict.fromkeys(("effnet auto", "effnet openvino", "torchvision"), row)
    compared = {"best_engine": "effnet openvino", "ratio_to_best_engine": ratio, "baseline_spread": spread}
    return {**facts, **compared, "rows": rows}


def test_the_verdict() -> None:
    good, slow = (report({"runs": [run(ratio, 0.02)]}) for ratio in (0.975, 0.965))
    assert ": within 3%" in good
    assert ": NOT within 3%" in slow
    assert "repeat" not in good
    assert "torchvision's rounds vary by 16%: repeat it" in report({"runs": [run(1.1, 0.16)]})


@pytest.mark.slow
def test_every_engine_takes_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("openvino", reason="extra openvino")
    pytest.importorskip("onnxruntime", reason="extra onnx")
    monkeypatch.setenv("EFFNET_HOME", str(tmp_path / "cache"))
    flags = ["--image-size", "32", "--batch-sizes", "2", "--rounds", "2", "--seconds", "0.01"]
    out = tmp_path / "auto.json"
    assert main(["auto", *flags, "--device", "cpu", "--eager-only", "--json", str(out)]) == 0
    (found,) = json.loads(out.read_text())["runs"]
    engines = {"effnet auto", "effnet openvino", "effnet onnxruntime", "effnet torch"}
    assert found["rows"].keys() == engines | {"torchvision"}
    rates = {name: row["images_per_second"] for name, row in found["rows"].items() if name in engines}
    assert found["best_engine"] == max(rates.keys() - {"effnet auto"}, key=lambda name: rates[name])
    assert f"auto took {found['chosen']}" in capsys.readouterr().out
