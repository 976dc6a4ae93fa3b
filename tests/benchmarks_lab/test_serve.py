"""The benchmark of the server, with wrk."""

import json
import shutil
from pathlib import Path

import pytest

from benchmarks.commands import main
from tests.serve.serving import photographs, weights_file


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("wrk") is None, reason="apt-get install wrk")
def test_a_server_under_load(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("uvicorn", reason="extra serve")
    photo, file = tmp_path / "photo.jpg", tmp_path / "result.json"
    photo.write_bytes(photographs(1)[0])
    model = str(weights_file(tmp_path / "one.safetensors"))
    few = ["--engine", "torch", "--clients", "2", "--rounds", "1", "--seconds", "3", "--requests", "5"]
    assert main(["serve", model, str(photo), *few, "--json", str(file)]) == 0
    result = json.loads(file.read_text())
    (row,) = result["rows"]
    assert 0 < row["batched"]["p50"] <= row["batched"]["p95"] <= row["batched"]["p99"]
    assert row["ratio"] > 0
    (memory,) = result["memory"]
    assert memory["requests"] >= 5
    assert memory["before"] > 1 << 20
    assert "batches gain" in capsys.readouterr().out


def test_a_photo_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "model.onnx", str(tmp_path / "none.jpg")]) == 2
    assert "none.jpg: no such file" in capsys.readouterr().err
