"""The benchmark of checkpoints in the background."""

import json
from pathlib import Path

import pytest

from benchmarks.checkpoint import WITH, WITHOUT
from benchmarks.commands import main

FLAGS = "--image-size 32 -b 2 --rounds 2 --every 2 --saves 2 --device cpu -a efficientnet-lite0"


def test_checkpoints_are_saved_in_their_turns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, folder = tmp_path / "result.json", tmp_path / "folder"
    folder.mkdir()
    assert main(["checkpoint", *FLAGS.split(), "--folder", str(folder), "--json", str(file)]) == 0
    result = json.loads(file.read_text())
    assert result["saves"] == 2 * 2
    assert {name: row["steps"] for name, row in result["rows"].items()} == {WITHOUT: 8, WITH: 8}
    # Weights, squared gradients and momenta in FP32.
    assert result["bytes"] == pytest.approx(3 * 4 * 4.65e6, rel=0.05)
    assert 0 < result["stall"] <= result["stall_at95"] <= result["stall_at100"]
    assert list(folder.iterdir()) == []
    assert "% of throughput" in capsys.readouterr().out


def test_numbers_out_of_range(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["checkpoint", *FLAGS.split(), "--every", "1"]) == 2
    assert "--every must be at least 2" in capsys.readouterr().err
