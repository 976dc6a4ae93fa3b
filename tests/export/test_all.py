"""`effnet export all`: every format that can be written here, and a table whose figures are those of the files."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from effnet.benchmark.formats import export_formats, lines
from effnet.cli import main
from effnet.cli.export import FORMATS
from effnet.export.reference import check_difference, example_images
from effnet.export.trained import ModelChoice, TrainedModel
from effnet.export.writer import Order, Writer, Written
from effnet.runtime.errors import UserError
from effnet.weights import WeightsMetadata
from tests.quantization.test_layers import small
from tests.runs import PREPROCESSING

onnxruntime = pytest.importorskip("onnxruntime", reason="extra onnx")
pytest.importorskip("openvino", reason="extra openvino")

CPU = torch.device("cpu")
CLASSES = tuple(f"class {index}" for index in range(10))


def trained() -> TrainedModel:
    metadata = WeightsMetadata("efficientnet-lite0", PREPROCESSING, classes=CLASSES)
    return TrainedModel(small("efficientnet-lite0"), metadata)


def refused(*given: Any, **options: Any) -> None:
    check_difference(given[2], 0.5, 1e-3)


def rows_of(result: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {row["format"]: row for row in result["rows"]}


def test_the_table_is_that_of_the_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """OpenVINO's file is refused by its gate: the other stays, and the exit code says so."""
    monkeypatch.setenv("EFFNET_HOME", str(tmp_path / "home"))  # nothing is in the cache
    model = trained()
    monkeypatch.setattr("effnet.export.trained.open_trained", lambda _: model)
    monkeypatch.setattr("effnet.export.openvino.export_openvino", refused)
    folder = tmp_path / "all"
    code = main(["export", "all", str(folder), "--cpu"])
    printed = capsys.readouterr().out.splitlines()
    assert code == 1, printed
    assert sorted(path.name for path in folder.iterdir()) == ["efficientnet-lite0.onnx", "formats.json"]
    result = json.loads((folder / "formats.json").read_text())
    rows = rows_of(result)
    assert list(rows) == ["PyTorch", "onnx", "openvino"]
    assert set(rows) | set(result["skipped"]) == {"PyTorch"} | {row.name for row in FORMATS if row.writer}
    assert {row.name for row in FORMATS if not row.writer} == {"weights", "triton"}
    assert "differ from PyTorch's" in rows["openvino"]["error"]
    for name in ("litert", "executorch", "web"):
        assert "--install" in result["skipped"][name]
        assert any(line.startswith(f"left out: {name}: ") for line in printed)
    # Figures of the file, found again without this project's engines.
    file = folder / "efficientnet-lite0.onnx"
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    differences = []
    for size in (1, 3, 8):
        images = example_images(model.preprocessing, size, takes_bytes=False)
        with torch.inference_mode():
            logits = model.model(images).numpy()
        differences.append(np.abs(session.run(["logits"], {"images": images.numpy()})[0] - logits).max())
    assert rows["onnx"]["bytes"] == file.stat().st_size
    assert 0 < rows["onnx"]["difference"] < 1e-4
    assert max(differences) < 1e-4
    assert (rows["onnx"]["same_top1"], rows["onnx"]["images"]) == (12, 12)
    assert rows["onnx"]["seconds"] > 0
    # The table: nothing else is printed between its heading and its legend.
    start = next(index for index, line in enumerate(printed) if line.startswith("format "))
    table = printed[start : start + 5]
    assert [line.split()[0] for line in table] == ["format", "PyTorch", "onnx", "openvino", "ms:"]
    assert max(map(len, table)) <= 80
    assert "not written" in table[3]
    assert printed[start + 5 :] == [f"openvino: {rows['openvino']['error']}"]


def test_files_that_run_elsewhere_are_compared_as_well(tmp_path: Path) -> None:
    """Stands in for a runtime in a process of its own, which finds another class for every second image."""
    order = Order(ModelChoice(), trained(), CPU)
    model = order.trained.model

    def write(given: Order, path: Path) -> Written:
        path.write_bytes(b"12345")
        return Written(path, 5, 0.25)

    def run(path: Path, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        with torch.inference_mode():
            logits = model(torch.from_numpy(images)).numpy()
        logits[::2] *= -1
        return logits, np.array([0.5, 0.002, *[0.001] * (len(images) - 2)])

    elsewhere = Writer(".bin", lambda _: None, write, run=run)
    blind = Writer("", lambda _: None, lambda _, path: Written(path, 7, None))
    absent = Writer(".x", lambda install: None if install else "x is missing: pip install x", write)
    result = export_formats(
        {"elsewhere": elsewhere, "blind": blind, "absent": absent}, order, tmp_path / "new"
    )
    rows = rows_of(result)
    assert rows["elsewhere"] == {
        "format": "elsewhere",
        "file": "efficientnet-lite0.bin",
        "bytes": 5,
        "seconds": 0.001,
        "difference": 0.25,
        "same_top1": 6,
        "images": 12,
        "error": None,
    }
    assert (rows["blind"]["file"], rows["blind"]["same_top1"], rows["blind"]["seconds"]) == (
        "blind",
        None,
        None,
    )
    assert rows["PyTorch"]["same_top1"] == 12
    assert result["skipped"] == {"absent": "x is missing: pip install x"}
    told = lines(result)
    assert told[0] == "left out: absent: x is missing: pip install x"
    assert told[3].split() == ["elsewhere", "efficientnet-lite0.bin", "0.0", "1.00", "2.5e-01", "6/12"]
    with pytest.raises(UserError, match="no format can be written here: x is missing: pip install x"):
        export_formats({"absent": absent}, order, tmp_path)
